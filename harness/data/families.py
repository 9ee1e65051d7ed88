"""The dataset families, by name."""

from harness.data import fashion_mnist, image_folder
from harness.data.family import Family

DATASETS: dict[str, Family] = {
    "fashion_mnist": fashion_mnist,
    "image_folder": image_folder,
}
