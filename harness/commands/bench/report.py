"""The files of a benchmark: csv for machines, Markdown and a plot for people; and the goals for a terminal."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from harness.commands.bench.frame import make_frame
from harness.commands.bench.goals import Judgement, Sense, Verdict
from harness.commands.bench.load import MAX_FOREIGN_CORES
from harness.commands.bench.result import Result, to_median
from harness.commands.bench.roofline import draw_roofline
from harness.commands.bench.session import Report
from harness.commands.bench.timing import SLOW_ROUNDS, SLOW_SECONDS
from harness.table.display import NOTHING, count_noun

VERSIONS = ("python", "torch", "torchvision", "timm", "numpy")
MIB = 2**20


def write_report(report: Report, folder: Path) -> tuple[Path, ...]:
    """Write `<device>.csv`, `.md` and `.png`; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = to_slug(report.machine.name)
    csv, markdown, plot = (folder / f"{stem}{suffix}" for suffix in (".csv", ".md", ".png"))
    frame = make_frame(report)
    csv.write_text(frame.to_csv(index=False, lineterminator="\n"), encoding="utf-8")
    markdown.write_text(to_markdown(report, frame, plot.name), encoding="utf-8")
    draw_roofline(frame, report, plot)
    return csv, markdown, plot


def to_slug(name: str) -> str:
    """A device's name as a file's: `amd-epyc-2-cores-avx512`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def to_text(report: Report) -> str:
    """Times of the cases, then the goals, as plain lines."""
    parts = [_to_grid(_to_case_rows(report.results, narrow=True), "simple")]
    parts.append(_to_grid(_to_goal_rows(report.judgements), "simple"))
    parts.append(_summarize(report))
    return "\n\n".join(parts)


def to_markdown(report: Report, frame: pd.DataFrame, plot: str) -> str:
    """Verdicts first, then every figure, how to read them, where they come from."""
    notes = [(row["case"], row["note"]) for row in frame.to_dict("records") if row["note"]]
    parts = [
        f"# Benchmark: {report.machine.name}",
        _summarize(report),
        "## Goals",
        _to_grid(_to_goal_rows(report.judgements), "github"),
        "\n".join(f"* {note}" for note in _to_goal_notes(report)),
        "## All cases",
        _to_grid(_to_case_rows(report.results), "github"),
        "\n".join(f"* {note}" for note in _to_case_notes(report)),
        *(
            ["What did not run, or not whole:", "\n".join(f"* `{case}`: {note}" for case, note in notes)]
            if notes
            else []
        ),
        "## How far from the machine",
        f"![GFLOP/s of every case over its FLOP per byte]({plot})",
        _describe_ceiling(report),
        "## Where it comes from",
        _to_provenance(report),
    ]
    return "\n\n".join(parts) + "\n"


def _summarize(report: Report) -> str:
    """One paragraph: is it a result, and how many goals are met?"""
    counts = [(verdict, sum(j.verdict == verdict for j in report.judgements)) for verdict in Verdict]
    said = ", ".join(f"{count} {verdict.value}" for verdict, count in counts if count)
    lines = [f"Goals: {said}."]
    if report.loaded:
        lines.insert(0, "**Loaded: not a result.** Others used the machine while this was measured.")
    if not report.is_whole:
        lines.insert(0, "A part of the benchmark only.")
    return " ".join(lines)


def _to_grid(rows: Sequence[dict[str, str]], form: str) -> str:
    escaped = [
        {name: cell.replace("|", r"\|") if form == "github" else cell for name, cell in row.items()} for row in rows
    ]
    align = (
        ["left" if name in ("goal", "shape", "case", "verdict", "note") else "right" for name in rows[0]]
        if rows
        else []
    )
    return tabulate(escaped, headers="keys", tablefmt=form, disable_numparse=True, colalign=align or None)


def _to_goal_rows(judgements: Iterable[Judgement]) -> list[dict[str, str]]:
    return [
        {
            "goal": judgement.goal,
            "shape": judgement.shape or NOTHING,
            "measured": _show_measured(judgement),
            "must": _show_bound(judgement.sense, judgement.bounds.must),
            "aim": _show_bound(judgement.sense, judgement.bounds.aim),
            "verdict": judgement.verdict.value,
            "note": judgement.note,
        }
        for judgement in judgements
    ]


def _show_measured(judgement: Judgement) -> str:
    if judgement.value is None:
        return NOTHING
    spread = ""
    if judgement.low is not None and judgement.high is not None:
        spread = f" [{_show_ratio(judgement.low)}, {_show_ratio(judgement.high)}]"
    return _show_ratio(judgement.value) + spread


def _show_bound(sense: Sense, bound: float | None) -> str:
    return NOTHING if bound is None else f"{sense.value} {_show_ratio(bound)}"


def _show_ratio(value: float) -> str:
    """Three digits; a small part as a fraction of one: `1/60`."""
    if 0 < value < 0.1:
        return f"1/{1 / value:.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _to_goal_notes(report: Report) -> Iterable[str]:
    yield (
        "**measured** is the first named divided by the second: the ratio of their medians, in brackets the quartiles of "
        "the ratio within each round. Times are of forward and backward together, "
        + ("on the CPU's clock of one thread." if report.setting.device == "cpu" else "on the wall clock.")
    )
    yield (
        "**must** is what the project promises, **aim** what would be at the limit; **verdict** names the better of the two "
        "that is met. `unmet` meets neither."
    )
    yield (
        "timm's core is its `WindowAttention` between the two linear layers, not fused, on windows that are already cut; ours "
        "takes the map, and cuts (and moves) it itself. `unfold` and `frozen` are fixed files beside the benchmark."
    )
    yield "s1 is 8 maps of 56x56 with 96 channels in 3 heads, s3 8 of 14x14 with 384 in 12; every window and kernel is 7x7."


def _to_case_rows(results: Iterable[Result], *, narrow: bool = False) -> list[dict[str, str]]:
    return [_to_case_row(result, narrow=narrow) for result in results]


def _to_case_row(result: Result, *, narrow: bool) -> dict[str, str]:
    probe = result.probe
    times = {
        "forward, ms": _show_ms(result, "forward", "cpu"),
        "f + b, ms": _show_ms(result, "train", "cpu"),
        "f + b wall, ms": _show_ms(result, "train", "wall"),
    }
    memory = {
        "saved, MiB": _show_mib(probe.saved if probe and probe.trains else None),
        "beyond inputs": _show_mib(probe.saved_beyond_inputs if probe and probe.trains else None),
        "peak, MiB": _show_mib(probe.peak_growth if probe else None),
    }
    if narrow:
        return {"case": result.case.id, **times, **memory}
    return {"case": f"`{result.case.id}`", "n": str(result.rounds), **times, "GFLOP/s": _show_speed(result), **memory}


def _show_ms(result: Result, name: str, clock: str) -> str:
    seconds = to_median(getattr(result, name), clock)
    return NOTHING if seconds is None else f"{1e3 * seconds:.3g}" if seconds < 0.1 else f"{1e3 * seconds:,.0f}"


def _show_speed(result: Result) -> str:
    seconds, probe = to_median(result.train, "cpu"), result.probe
    if seconds is None or probe is None or probe.multiply_adds is None:
        return NOTHING
    return f"{6 * probe.multiply_adds / seconds / 1e9:.3g}"


def _show_mib(size: int | None) -> str:
    return NOTHING if size is None else f"{size / MIB:.1f}" if size < 100 * MIB else f"{size / MIB:,.0f}"


def _to_case_notes(report: Report) -> Iterable[str]:
    yield (
        "**case** is operator / by whose code / shape: `cpu`, `torch`, `triton`, `reference`, `dense` are ours, `auto` is what "
        "ours chooses by itself."
    )
    yield (
        f"**n** rounds, in each of which every case has its turn, {SLOW_ROUNDS} of them where one pass takes more than "
        f"{SLOW_SECONDS:g} s. Times are medians over the rounds."
    )
    yield (
        "**forward** keeps nothing (inference); **f + b** is forward and backward to every input and table, of whole models "
        "a step with the optimizer; CPU time of the process, **wall** the clock on the wall."
    )
    yield "**GFLOP/s** of f + b: twice the multiply-adds of the definition, a backward pass counted as two forward passes."
    yield (
        "**saved** is what the forward pass keeps for the backward pass, each storage once, inputs, tables and parameters "
        "included; **beyond inputs** without these."
    )
    yield (
        "**peak** is how far the memory of a fresh process grew during one f + b, beyond its inputs: output, gradients and "
        "everything between."
    )


def _describe_ceiling(report: Report) -> str:
    return (
        f"One thread multiplies large matrices at {report.ceiling.flops / 1e9:,.0f} GFLOP/s and copies at "
        f"{report.ceiling.bandwidth / 1e9:,.1f} GB/s, each byte counted once read and once written; both were measured with "
        "the cases. FLOP per byte counts each input, output and gradient as if it moved once, so that all forms of one "
        "operator stand above each other and the distance to the roof is what an implementation leaves."
    )


def _to_provenance(report: Report) -> str:
    facts = report.machine.facts
    dirty = {"false": "", "true": " (+ uncommitted changes)"}.get(facts["dirty"], f" ({facts['dirty']})")
    rows = {
        "device": f"{facts['device']}, {count_noun(int(facts['cores']), 'core')}, {facts['isa']}, {facts['system']}",
        "numbers": facts["dtype"],
        "threads": "1, unless the case says otherwise",
        "rounds": f"{report.repeats}; {report.machine.repeated_rounds} repeated because others used the machine",
        "load": f"others used at most {report.machine.foreign:.2f} of a core in a round that counts (limit {MAX_FOREIGN_CORES:g})",
        "commit": f"{facts['commit']}{dirty}",
        "versions": ", ".join(f"{name} {facts[name]}" for name in VERSIONS),
        "date": facts["date"],
    }
    return tabulate(rows.items(), headers=["", ""], tablefmt="github", disable_numparse=True)
