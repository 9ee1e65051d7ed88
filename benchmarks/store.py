"""`python -m benchmarks.store`: what the harness itself costs around the runs, and beside many other runs."""

import argparse
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from uuid import uuid4

import pandas as pd
import psutil
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from tabulate import tabulate

from benchmarks.case import Setting
from benchmarks.goals import MEETS, Sense, Verdict
from benchmarks.load import MAX_FOREIGN_CORES, describe_load, read_machine, require_idle
from benchmarks.report import add_folders, to_slug, write_pair
from benchmarks.session import describe_machine
from harness.cli.options import at_least_one, find_results, list_files
from harness.cli.verb import FAILED, INTERRUPTED, echo
from harness.errors import HarnessError
from harness.files import temporary_folder

EXPERIMENT = "table1"
STORED, PLANNED, ROUNDS, SEEDS = 10_000, 10_000, 3, 3
CELLS = 11
"""Rows and floors of the experiment."""

LONGER = ("--set", "training.epochs=8")
"""So that a run takes some seconds: two of them at once show what they wait for each other."""


@dataclass(frozen=True)
class Goal:
    """A quantity and what it should be."""

    what: str
    unit: str
    sense: Sense | None = None
    value: float = 0.0

    def judge(self, measured: float, *, is_idle: bool) -> Verdict | None:
        """Whether a measurement meets it; None where there is nothing to meet."""
        if self.sense is None:
            return None
        if not is_idle:
            return Verdict.LOADED
        return Verdict.MET_MUST if MEETS[self.sense](measured, self.value) else Verdict.UNMET


VERBS: Mapping[str, tuple[str, ...]] = {
    "plan": ("plan", EXPERIMENT, "--recipe", "smoke"),
    "table": ("table", EXPERIMENT, "--recipe", "smoke"),
    "status": ("status",),
    "show": ("show",),
}
AROUND = Goal("around a run, beside its own seconds", "s", Sense.AT_MOST, 0.3)
AROUND_LATE = Goal(f"around a run, with {STORED:,} other runs in the store", "s")
SPEEDUP = Goal("throughput of two workers, of one", "times", Sense.AT_LEAST, 1.85)
ALONE = {verb: Goal(f"harness {verb}", "s") for verb in VERBS}
BESIDE = {verb: Goal(f"harness {verb}, more beside {STORED:,} other runs", "s", Sense.AT_MOST, 2.0) for verb in VERBS}
MEMORY = Goal(f"memory of a command with {PLANNED:,} planned runs", "GB", Sense.AT_MOST, 1.0)


@dataclass
class Bench:
    """A folder in which commands are executed as a user does."""

    folder: Path

    def start(self, store: str, *arguments: str) -> subprocess.Popen[str]:
        """A command on a store in the folder."""
        command = [sys.executable, "-P", "-m", "harness.cli", *arguments, "--tracking-uri", f"sqlite:///{store}.db"]
        return subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )

    def time(self, store: str, *arguments: str) -> float:
        """Seconds of a command from its start to its end.

        Raises:
            HarnessError: it fails.
        """
        start, process = time.perf_counter(), self.start(store, *arguments)
        output, _ = process.communicate()
        if process.returncode:
            raise HarnessError(f"harness {' '.join(arguments)} fails:\n{output}")
        return time.perf_counter() - start

    def list_runs(self, store: str) -> list[Run]:
        """Those of the experiment, in the order of their starts."""
        client = MlflowClient(f"sqlite:///{self.folder / store}.db")
        ids = [str(found.experiment_id) for found in client.search_experiments() if found.name == EXPERIMENT]
        runs = client.search_runs(ids, "tags.kind = 'run'", max_results=10_000)
        return sorted(runs, key=lambda run: run.info.start_time)


def measure_all(folder: Path, *, rounds: int) -> Iterator[tuple[Goal, float]]:
    """Every quantity, as soon as it is known."""
    bench = Bench(folder)
    yield AROUND, _measure_overhead(bench, "small", seeds=SEEDS)
    yield SPEEDUP, _measure_speedup(bench)
    shutil.copy(folder / "small.db", folder / "large.db")
    add_runs(folder / "large.db", STORED)
    run_id = bench.list_runs("small")[0].info.run_id
    for verb, arguments in VERBS.items():
        call = (*arguments, run_id) if verb == "show" else arguments
        seconds = {store: list[float]() for store in ("small", "large")}
        for _ in range(rounds):
            for store, measured in seconds.items():
                measured.append(bench.time(store, *call))
        yield ALONE[verb], median(seconds["small"])
        yield BESIDE[verb], median(seconds["large"]) - median(seconds["small"])
    yield AROUND_LATE, _measure_overhead(bench, "large", seeds=SEEDS + 1)
    yield MEMORY, _measure_memory(bench)


def _measure_overhead(bench: Bench, store: str, *, seeds: int) -> float:
    """Per run, what the wall clock has beside the seconds that the runs' own processes have measured."""
    known = {run.info.run_id for run in bench.list_runs(store)} if (bench.folder / f"{store}.db").exists() else ()
    bench.time(store, "run", EXPERIMENT, "--recipe", "smoke", "--set", f"seeds={seeds}", "--workers", "1")
    runs = [run for run in bench.list_runs(store) if run.info.run_id not in known]
    wall = (runs[-1].info.end_time - runs[0].info.start_time) / 1000
    return float(wall - sum(run.data.metrics["seconds"] for run in runs)) / len(runs)


def _measure_speedup(bench: Bench) -> float:
    """From the first start to the last end, with one worker and with two; floors, which take no time, are left out."""
    walls = list[float]()
    for workers in (1, 2):
        store = f"workers{workers}"
        rows = ("--rows", "Swin-T,Net1,Net6,Net7", "--seeds", "0-1")
        bench.time(store, "run", EXPERIMENT, "--recipe", "smoke", *LONGER, *rows, "--workers", str(workers))
        runs = bench.list_runs(store)
        walls.append((max(run.info.end_time for run in runs) - runs[0].info.start_time) / 1000)
    return walls[0] / walls[1]


def _measure_memory(bench: Bench) -> float:
    """The peak of the command's own process until its first run has ended, in GB."""
    seeds = PLANNED // CELLS
    process = bench.start("memory", "run", EXPERIMENT, "--recipe", "smoke", "--set", f"seeds={seeds}", "--workers", "1")
    assert process.stdout is not None
    peak = 0.0
    with suppress(psutil.NoSuchProcess):
        for line in process.stdout:
            peak = max(peak, psutil.Process(process.pid).memory_info().rss / 1e9)
            if line.startswith("[1/"):
                break
    process.terminate()
    process.communicate()
    return peak


def add_runs(database: Path, count: int) -> None:
    """Copy the runs of the experiment under other names and other cells until there are `count` more."""
    with closing(sqlite3.connect(database)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = {table: [row[1] for row in connection.execute(f"PRAGMA table_info({table})")] for table in tables}
        runs = [
            run
            for (run,) in connection.execute(
                "SELECT run_uuid FROM runs JOIN experiments USING (experiment_id) WHERE experiments.name = ?",
                [EXPERIMENT],
            )
        ]
        connection.execute("CREATE TEMP TABLE copies (old TEXT PRIMARY KEY, new TEXT)")
        for number in range(1000, 1000 + -(-count // len(runs))):
            connection.execute(
                "INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (?, ?, 'active')",
                [number, f"other{number}"],
            )
            connection.execute("DELETE FROM copies")
            connection.executemany("INSERT INTO copies VALUES (?, ?)", [(run, uuid4().hex) for run in runs])
            for table in (table for table in tables if "run_uuid" in columns[table]):
                changed = {"run_uuid": "new", "experiment_id": str(number)}
                values = ", ".join(changed.get(name, f'"{name}"') for name in columns[table])
                connection.execute(f"INSERT INTO {table} SELECT {values} FROM {table} JOIN copies ON run_uuid = old")
            connection.execute(
                "UPDATE tags SET value = substr(value, 1, 6) || ? WHERE key = 'cell_id' AND run_uuid IN "
                "(SELECT new FROM copies)",
                [f"{number:06d}"],
            )
        connection.commit()


def make_frame(found: Mapping[Goal, float], *, is_idle: bool) -> pd.DataFrame:
    """One row a quantity."""
    return pd.DataFrame(
        {
            "what": goal.what,
            "value": float(f"{value:.3g}"),
            "unit": goal.unit,
            "goal": "" if goal.sense is None else f"{goal.sense.value} {goal.value:g}",
            "verdict": goal.judge(value, is_idle=is_idle) or "",
        }
        for goal, value in found.items()
    )


def make_parser() -> argparse.ArgumentParser:
    """How often to measure, where to write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store", description=__doc__)
    parser.add_argument("--rounds", type=at_least_one, default=ROUNDS, metavar="N", help="of each verb (default: 3)")
    parser.add_argument("--allow-load", action="store_true", help="measure on a busy machine too: no result")
    add_folders(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; returns the exit code as `python -m benchmarks` does."""
    options = make_parser().parse_args(argv)
    found = dict[Goal, float]()
    try:
        foreign = require_idle(read_machine, allow_load=options.allow_load)
        with temporary_folder() as folder:
            for goal, value in measure_all(folder, rounds=options.rounds):
                found[goal] = value
                echo(f"{goal.what}: {value:.3g} {goal.unit}")
    except HarnessError as error:
        echo(f"benchmarks: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    is_idle = foreign <= MAX_FOREIGN_CORES
    frame = make_frame(found, is_idle=is_idle)
    machine = describe_machine(Setting("cpu", torch.float32), foreign, 0, folders=("harness", "benchmarks"))
    target: Path | None = options.output or (find_results(options) / "bench" if is_idle else None)
    if target is None:
        echo("nothing is written: a busy machine makes no results file")
    else:
        text = to_markdown(frame, machine.name, machine.facts, foreign)
        echo(list_files(write_pair(target, f"store-{to_slug(machine.name)}", frame, text)))
    return 0 if is_idle else FAILED


def to_markdown(frame: pd.DataFrame, name: str, facts: Mapping[str, str], foreign: float) -> str:
    """The quantities, how to read them, and where they come from."""
    names = ("device", "cores", "system", "commit", "code_digest", "date", "python", "torch", "mlflow")
    parts = [
        f"# Around the runs: {name}",
        f"Table 1 under `smoke`, through the command line, on a database file. Verbs: medians. The {STORED:,} other "
        f"runs are copies of Table 1's under other names and with other cells. Two workers: runs of some seconds.",
        tabulate(frame.to_dict("records"), headers="keys", tablefmt="github"),
        tabulate(
            [*((each, facts[each]) for each in names), ("load", describe_load(foreign))], ("", ""), tablefmt="github"
        ),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
