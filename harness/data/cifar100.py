"""CIFAR-100 (Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009): a hundred classes.

No licence is stated for it: the images are never shipped.
"""

from harness.data.cifar import Cifar

CIFAR100 = Cifar(
    name="cifar100",
    title="CIFAR-100",
    reader="CIFAR100",
    num_classes=100,
    folder="cifar-100-python",
    files=("meta", "test", "train"),
    archive_md5="eb9058c3a382ffc7106e4002c42a8d85",
    mean=0.4782,
    std=0.2682,
)
