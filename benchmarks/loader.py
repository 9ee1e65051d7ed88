"""`python -m benchmarks.loader`: images per second that loading processes decode and augment, without any training."""

import argparse
import resource
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter

import pandas as pd
import torch
from tabulate import tabulate

from benchmarks.case import Setting
from benchmarks.frame import FACTS
from benchmarks.load import MAX_FOREIGN_CORES, Reading, describe_load, foreign_cores, read_machine, require_idle
from benchmarks.photographs import HEIGHT, NUM_CLASSES, WIDTH, pack_shards, write_folder
from benchmarks.report import add_folders, to_slug, write_pair
from benchmarks.session import Machine, describe_machine
from harness.cli.options import at_least_one, find_results, list_files
from harness.cli.verb import FAILED, INTERRUPTED, echo
from harness.data import load_data
from harness.errors import HarnessError
from harness.files import temporary_folder
from harness.reading import load_recipe
from harness.spec import AugmentationSpec, DataSpec, TrainingSpec

RECIPE = "imagenet"
IMAGES, ROUNDS, BATCH_SIZE = 768, 5, 64
CPU = torch.device("cpu")

AUGMENTATIONS = ("none", RECIPE)
"""Random crops alone, and all that the recipe has; mixing and erasing are computed in the main process."""


@dataclass(frozen=True)
class Case:
    """What one epoch of training images is loaded with.

    Attributes:
        family: of the dataset: how the images are stored.
        workers: loading processes.
        augmentation: one of `AUGMENTATIONS`.
    """

    family: str
    workers: int
    augmentation: str

    def measure(self, folder: Path, epoch: int) -> float:
        """Images per second of an epoch, the start of its loading processes included."""
        recipe = load_recipe(RECIPE)
        fields = {"name": self.family, "num_classes": NUM_CLASSES, "loading_workers": self.workers}
        spec = DataSpec.model_validate({**recipe.data.model_dump(), **fields})
        augmentation = AugmentationSpec() if self.augmentation == "none" else recipe.training.augmentation
        changes = {"batch_size": BATCH_SIZE, "augmentation": augmentation}
        training: TrainingSpec = recipe.training.model_copy(update=changes)
        data = load_data(spec, training, replicate=0, data_dir=folder, device=CPU)
        start = perf_counter()
        loaded = sum(len(images) for images, _ in data.train_batches(epoch))
        return loaded / (perf_counter() - start)


CASES = tuple(Case(*levels) for levels in product(("image_folder", "image_shards"), (1, 2), AUGMENTATIONS))


@dataclass(frozen=True)
class Report:
    """All speeds, round by round, and how much others used the machine."""

    speeds: dict[Case, list[float]]
    machine: Machine

    @property
    def is_result(self) -> bool:
        """Whether the machine was idle."""
        return self.machine.foreign <= MAX_FOREIGN_CORES


def measure_all(*, images: int, rounds: int, allow_load: bool) -> Iterator[str | Report]:
    """Measure every case in turn, round after round; yields a line for each and at the end the report.

    Raises:
        LoadError: others use the machine, and `allow_load` is not set.
    """
    foreign = [require_idle(read_machine, allow_load=allow_load)]
    torch.set_num_threads(1)
    speeds: dict[Case, list[float]] = {case: [] for case in CASES}
    with temporary_folder() as temporary:
        folder = write_folder(temporary / "files", images=images)
        folders = {"image_folder": folder, "image_shards": pack_shards(folder, temporary / "archives")}
        CASES[0].measure(folder, 1)  # what is imported and read for the first time
        for epoch in range(1, rounds + 1):
            before = _read_machine()
            for case in CASES:
                speeds[case].append(case.measure(folders[case.family], epoch))
                yield f"round {epoch}: {_name(case)}: {speeds[case][-1]:.1f} images/s"
            foreign.append(foreign_cores(before, _read_machine()))
    setting = Setting("cpu", torch.float32)
    yield Report(speeds, describe_machine(setting, max(foreign), 0, folders=("harness/data", "benchmarks")))


def _read_machine() -> Reading:
    """As of now; loading processes that have ended are ours."""
    reading, ended = read_machine(), resource.getrusage(resource.RUSAGE_CHILDREN)
    return replace(reading, own=reading.own + ended.ru_utime + ended.ru_stime)


def _name(case: Case) -> str:
    return f"{case.family}, {case.workers} loading, augmentation {case.augmentation}"


def make_frame(report: Report) -> pd.DataFrame:
    """One row a case: median, smallest and largest of its rounds."""
    machine = report.machine
    facts = {name: machine.facts[name] for name in FACTS}
    rows = [
        {
            "family": case.family,
            "loading_workers": case.workers,
            "augmentation": case.augmentation,
            "rounds": len(found),
            "images_per_second": round(median(found), 1),
            "slowest": round(min(found), 1),
            "fastest": round(max(found), 1),
            "foreign_cores": round(machine.foreign, 3),
            "loaded": not report.is_result,
            **facts,
        }
        for case, found in report.speeds.items()
    ]
    return pd.DataFrame(rows)


def to_text(frame: pd.DataFrame, form: str) -> str:
    """The speeds as a table in one of tabulate's forms."""
    shown = frame.iloc[:, : list(frame).index("foreign_cores")]
    return tabulate(shown.to_dict("records"), headers="keys", tablefmt=form)


def to_markdown(report: Report, frame: pd.DataFrame) -> str:
    """The speeds, how to read them, and where they come from."""
    facts, machine, rounds = report.machine.facts, report.machine, len(report.speeds[CASES[0]])
    state = "" if report.is_result else "**Loaded: not a result.** "
    provenance = [(name, facts[name]) for name in ("device", "cores", "isa", "system", "commit", "code_digest", "date")]
    versions = [(name, facts[name]) for name in ("python", "torch", "torchvision", "timm", "numpy")]
    parts = [
        f"# Loading images: {machine.name}",
        f"{state}Images per second of an epoch that is loaded and not trained on; median of {rounds} rounds. The "
        f"images are generated, {WIDTH}x{HEIGHT}, about 110 kB each. They are in the page cache: the time of a disk or "
        f"a network is not included. Batches of {BATCH_SIZE} at 224x224. Augmentation `none` is a random crop; "
        f"`{RECIPE}` is all of that recipe. The main process normalizes, mixes and erases.",
        to_text(frame, "github"),
        tabulate([*provenance, ("load", describe_load(machine.foreign)), *versions], ("", ""), tablefmt="github"),
    ]
    return "\n\n".join(parts) + "\n"


def make_parser() -> argparse.ArgumentParser:
    """How much to measure, where to write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loader", description=__doc__)
    parser.add_argument("--images", type=at_least_one, default=IMAGES, metavar="N", help="in an epoch (default: 768)")
    parser.add_argument("--rounds", type=at_least_one, default=ROUNDS, metavar="N", help="epochs per case (default: 5)")
    parser.add_argument("--allow-load", action="store_true", help="measure on a busy machine too: no result")
    add_folders(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; returns the exit code as `python -m benchmarks` does."""
    options = make_parser().parse_args(argv)
    try:
        if options.images < 8 * BATCH_SIZE:
            raise HarnessError(f"--images: at least {8 * BATCH_SIZE}, got {options.images}")
        for event in measure_all(images=options.images, rounds=options.rounds, allow_load=options.allow_load):
            if isinstance(event, str):
                echo(event)
    except HarnessError as error:
        echo(f"benchmarks: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    assert isinstance(event, Report)
    frame = make_frame(event)
    echo(f"\n{to_text(frame, 'simple')}\n")
    is_whole = (options.images, options.rounds) == (IMAGES, ROUNDS)
    folder = options.output or (find_results(options) / "bench" if event.is_result and is_whole else None)
    if folder is None:
        echo("nothing is written: a busy machine, or another number of images or rounds, makes no results file")
    else:
        stem = f"loader-{to_slug(event.machine.name)}"
        echo(list_files(write_pair(folder, stem, frame, to_markdown(event, frame))))
    return 0 if event.is_result else FAILED


if __name__ == "__main__":
    sys.exit(main())
