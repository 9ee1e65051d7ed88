"""Writes the files of a benchmark: csv, Markdown and a plot."""

import argparse
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from benchmarks.cells import to_case_rows, to_goal_row, to_grid
from benchmarks.frame import make_frame
from benchmarks.goals import Verdict
from benchmarks.load import MAX_FOREIGN_CORES
from benchmarks.notes import describe_ceiling, list_case_notes, list_goal_notes
from benchmarks.roofline import draw_roofline
from benchmarks.session import Report
from harness.text import count_noun, to_csv

VERSIONS = ("python", "torch", "torchvision", "timm", "numpy")


def write_report(report: Report, folder: Path) -> tuple[Path, ...]:
    """Write `<device>.csv`, `.md` and `.png`; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = to_slug(report.machine.name)
    csv, markdown, plot = (folder / f"{stem}{suffix}" for suffix in (".csv", ".md", ".png"))
    frame = make_frame(report)
    csv.write_text(to_csv(frame), encoding="utf-8")
    markdown.write_text(to_markdown(report, frame, plot.name), encoding="utf-8")
    draw_roofline(frame, report, plot)
    return csv, markdown, plot


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Add where a benchmark writes."""
    parser.add_argument("--results", type=Path, metavar="DIR", help="where results go, in bench/ (default: results/)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write there instead, whatever was measured")


def write_pair(folder: Path, stem: str, frame: pd.DataFrame, markdown: str) -> tuple[Path, Path]:
    """Write `<stem>.csv` and `.md`; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / f"{stem}.csv", folder / f"{stem}.md"
    for path, text in zip(paths, (to_csv(frame), markdown), strict=True):
        path.write_text(text, encoding="utf-8")
    return paths


def to_slug(name: str) -> str:
    """A device's name as a file's: `amd-epyc-2-cores-avx512`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def to_text(report: Report) -> str:
    """Times of the cases, then the goals that were measured, as plain lines."""
    cases = [
        {name: cell for name, cell in row.items() if name not in ("n", "wall, ms")}
        for row in to_case_rows(report.results, report.setting.device)
    ]
    judged = [judgement for judgement in report.judgements if judgement.verdict != Verdict.NOT_MEASURED]
    goals = [{name: cell for name, cell in to_goal_row(each).items() if name != "note"} for each in judged]
    grids = [to_grid(rows, "simple") for rows in (cases, goals) if rows]
    return "\n\n".join([*grids, _summarize(report).replace("**", "")])


def to_markdown(report: Report, frame: pd.DataFrame, plot: str) -> str:
    """Verdicts first, then every figure, how to read them, where they come from."""
    device = report.setting.device
    parts = [
        f"# Benchmark: {report.machine.name}",
        _summarize(report),
        "## Goals",
        to_grid([to_goal_row(judgement) for judgement in report.judgements], "github"),
        _list_lines(list_goal_notes(device)),
        "## All cases",
        to_grid(to_case_rows(report.results, device), "github"),
        _list_lines([*list_case_notes(), *_list_notes(frame)]),
        "## How far from the machine's limits",
        f"![GFLOP/s of every case over its FLOP per byte]({plot})",
        describe_ceiling(report.ceiling, device),
        "## Where it comes from",
        _to_provenance(report),
    ]
    return "\n\n".join(parts) + "\n"


def _summarize(report: Report) -> str:
    """One paragraph: is it a result, and how many goals are met?"""
    counts = [(verdict, sum(each.verdict == verdict for each in report.judgements)) for verdict in Verdict]
    sentences = [f"Goals: {', '.join(f'{count} {verdict.value}' for verdict, count in counts if count)}."]
    if not report.is_whole:
        sentences.insert(0, "A part of the benchmark only.")
    if report.loaded:
        busy = f"Others used up to {report.machine.foreign:.2f} of a core while this was measured."
        sentences.insert(0, f"**Loaded: not a result.** {busy}")
    return " ".join(sentences)


def _list_lines(notes: Iterable[str]) -> str:
    return "\n".join(f"* {note}" for note in notes)


def _list_notes(frame: pd.DataFrame) -> list[str]:
    """Cases that did not run, have no backward pass, or state a version."""
    return [f"`{row['case']}`: {row['note']}." for row in frame.to_dict("records") if row["note"]]


def _to_provenance(report: Report) -> str:
    facts, machine = report.machine.facts, report.machine
    dirty = {"false": "", "true": " (+ uncommitted changes)"}.get(facts["dirty"], f" ({facts['dirty']})")
    rows = {
        "device": f"{facts['device']}, {count_noun(int(facts['cores']), 'core')}, {facts['isa']}, {facts['system']}",
        "numbers": facts["dtype"],
        "threads": "1 where the case does not say otherwise",
        "rounds": f"{report.repeats}; {machine.repeated_rounds} more were disturbed and repeated",
        "load": f"others used at most {machine.foreign:.2f} of a core in a round (limit {MAX_FOREIGN_CORES:g})",
        "commit": f"{facts['commit']}{dirty}",
        "code digest": f"`{facts['code_digest']}` (the operators and the benchmark)",
        "versions": ", ".join(f"{name} {facts[name]}" for name in VERSIONS),
        "date": facts["date"],
    }
    return tabulate(rows.items(), headers=["", ""], tablefmt="github", disable_numparse=True)
