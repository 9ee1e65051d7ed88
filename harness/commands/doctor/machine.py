"""Checks of the device, its threads, the kernels and the disk."""

import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands.doctor.finding import Finding, Level
from harness.provenance import collect
from harness.reading import list_recipes, load_recipe
from harness.text import count_noun

if TYPE_CHECKING:
    import torch

LITTLE_SPACE, NO_SPACE = 2e9, 0.2e9
"""Limits in bytes: a table under `imagenet` stores a few GB of weights, one under `laptop` a hundredth of that."""


def check_machine() -> Iterator[Finding]:
    """Check device, threads and kernels; if torch cannot be imported, this is the only finding."""
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding(Level.PROBLEM, "torch", f"cannot be imported: {error}", "install it again: `make setup`")
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    yield _check_device(device)
    yield _check_threads()
    yield _check_kernels(device)


def _check_device(device: "torch.device") -> Finding:
    import torch

    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / 1e9
        return Finding(Level.OK, "device", f"{torch.cuda.get_device_name(device)}, {memory:.0f} GB")
    if Path("/dev/nvidia0").exists():
        found = f"there is an NVIDIA GPU that torch {torch.__version__} cannot use"
        return Finding(
            Level.WARNING, "device", found, "run `nvidia-smi` to compare its driver with torch's version of CUDA"
        )
    return Finding(Level.OK, "device", f"{collect()['device']}; there is no GPU")


def _check_threads() -> Finding:
    """Check the number of workers of each recipe: a run has one thread, and more workers than cores are slower."""
    import torch

    cores = len(os.sched_getaffinity(0))
    asked = {recipe.name: recipe.workers for recipe in map(load_recipe, list_recipes()) if recipe.workers > cores}
    threads = torch.get_num_threads()
    found = f"{count_noun(cores, 'core')}, torch uses {count_noun(threads, 'thread')}; each worker of a run uses one"
    if asked:
        listed = ", ".join(f"{name} asks for {workers} workers" for name, workers in asked.items())
        return Finding(Level.WARNING, "threads", f"{found}; {listed}", f"give --workers {cores} to `harness run`")
    return Finding(Level.OK, "threads", found)


def _check_kernels(device: "torch.device") -> Finding:
    from harness.build import describe_kernels

    with _collect_log("paradigms") as messages:
        kernels = describe_kernels(device)
    if messages:
        advice = "with a C++ compiler on the path (g++): `make setup`, or pip install --editable . again"
        return Finding(Level.WARNING, "kernels", f"{kernels}: {'; '.join(messages)}", advice)
    return Finding(Level.OK, "kernels", kernels)


@contextmanager
def _collect_log(name: str) -> Iterator[list[str]]:
    """Collect the messages of a logger instead of printing them."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(name)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def check_disk(folders: Iterable[Path]) -> Iterator[Finding]:
    """Check free space and write permission in the folders of the store and of the tables."""
    for folder in dict.fromkeys(_find_existing(folder) for folder in folders):
        free = shutil.disk_usage(folder).free
        found = f"{free / 1e9:,.1f} GB free in {folder}"
        if not os.access(folder, os.W_OK):
            yield Finding(Level.PROBLEM, "disk", f"{folder} cannot be written to", "change its rights, or go elsewhere")
        elif free < LITTLE_SPACE:
            level = Level.PROBLEM if free < NO_SPACE else Level.WARNING
            yield Finding(level, "disk", found, "make room: runs keep their weights in mlartifacts/ beside the store")
        else:
            yield Finding(Level.OK, "disk", found)


def _find_existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
