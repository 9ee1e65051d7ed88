"""A training of two steps on random images in a process of its own; prints by how many bytes its memory grew.

Arguments: the pickled cell, in hexadecimal digits, and the number of images of a step.
"""

import ctypes
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from harness.build import build_model
from harness.cell import Cell
from harness.ranks import Ranks
from harness.tasks.classification import CLASSIFICATION
from harness.train import Training


def train_briefly(cell: Cell, num_images: int, num_steps: int) -> None:
    size, classes = cell.data.image_size, cell.data.num_classes

    def draw(count: int) -> tuple[Tensor, Tensor]:
        return torch.rand(count, cell.data.channels, size, size), torch.randint(classes, (count,))

    def draw_steps(_epoch: int, _first: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield from (draw(num_images) for _ in range(num_steps))

    data = SimpleNamespace(
        steps_per_epoch=100, num_classes=classes, train_batches=draw_steps, val_batches=lambda: [draw(1)], metrics={}
    )
    model = build_model(cell, replicate=None, device="cpu")
    next(iter(Training(model, data, cell.training, task=CLASSIFICATION, replicate=0, ranks=Ranks(torch.device("cpu")))))


def read_status(name: str) -> int:
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) * 1024


if __name__ == "__main__":
    torch.set_num_threads(1)
    asked: Cell = pickle.loads(bytes.fromhex(sys.argv[1]))
    train_briefly(asked, int(sys.argv[2]), 1)  # libraries and the code that they compile for these shapes do not count
    ctypes.CDLL(None).malloc_trim(0)
    before = read_status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    train_briefly(asked, int(sys.argv[2]), 2)
    sys.stdout.write(str(read_status("VmHWM") - before))
