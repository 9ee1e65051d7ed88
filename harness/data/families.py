"""The dataset families, by name."""

from harness.data import fashion_mnist, fashion_scenes, image_folder, image_shards, timm
from harness.data.cifar10 import CIFAR10
from harness.data.cifar100 import CIFAR100
from harness.data.family import Family

DATASETS: dict[str, Family] = {
    "fashion_mnist": fashion_mnist,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "image_folder": image_folder,
    "image_shards": image_shards,
    "timm": timm,
    "fashion_scenes": fashion_scenes,
}
