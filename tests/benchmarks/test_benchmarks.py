"""The benchmark on tiny maps. Nothing here asserts a time."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch import Tensor

from benchmarks import frozen_unfold, frozen_window
from benchmarks.__main__ import main
from benchmarks.case import Case, Draw, Setting, Shape
from benchmarks.catalogue import choose_cases, list_cases
from benchmarks.ceiling import Ceiling
from benchmarks.display import open_display
from benchmarks.frame import COLUMNS, make_frame
from benchmarks.goals import GOALS, Bounds, Quantity, Sense, Verdict, judge, judge_all
from benchmarks.load import Reading, foreign_cores
from benchmarks.operators import build_operator
from benchmarks.probe import probe_case
from benchmarks.report import to_slug, to_text, write_report
from benchmarks.result import Lap, Probe, Result
from benchmarks.session import BenchOptions, Finished, Machine, Report, run_bench
from benchmarks.table1 import read_training_minutes
from benchmarks.timing import Rounds, time_rounds
from harness.errors import LoadError, SpecError
from paradigms.functional import Aggregation, Geometry, Outside, Terms
from paradigms.kernels import reference
from paradigms.normalization import Softmax

SETTING = Setting()
TINY = Shape("s1", batch=2, height=14, width=7, channels=6, heads=2)


def read_idle() -> Reading:
    """Nobody else computes."""
    return Reading(time.perf_counter(), time.process_time(), time.process_time())


def read_busy() -> Reading:
    """Others keep half a core busy."""
    wall, own = time.perf_counter(), time.process_time()
    return Reading(wall, own + wall / 2, own)


def draw_operands(offsets: int) -> list[Tensor]:
    """Queries, keys, values and the three tables, in float64."""
    draw, size = Draw(TINY, Setting(dtype=torch.float64)), TINY.map_size
    return [*(draw(*size) for _ in "qkv"), draw(2, offsets, 3), draw(2, offsets, 3), draw(2, offsets)]


def attend_by_reference(operands: list[Tensor], geometry: Geometry) -> Tensor:
    q, k, v, rk, rq, rb = operands
    terms = Terms(q, k, rk, rq, rb, q.shape[-1] ** -0.5)
    return reference.attend(terms, v, geometry, Softmax(), Aggregation(), Outside(None, None), 0.0)


@pytest.mark.parametrize("form", ["unfold", "window"])
def test_a_frozen_form_is_the_reference_in_value_and_every_gradient(form: str) -> None:
    geometry = Geometry("sliding" if form == "unfold" else "window", (7, 7))
    operands = draw_operands(geometry.num_offsets)
    frozen = (
        frozen_unfold.attend_net7(*operands)
        if form == "unfold"
        else frozen_window.attend_net7(*operands, frozen_window.make_offsets(7))
    )
    expected = attend_by_reference(operands, geometry)
    grad = torch.randn_like(expected)
    torch.testing.assert_close(frozen, expected, rtol=1e-10, atol=1e-12)
    found = torch.autograd.grad(frozen, operands, grad)
    for ours, theirs in zip(found, torch.autograd.grad(expected, operands, grad), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("module", [frozen_unfold, frozen_window], ids=lambda module: module.__name__)
def test_a_frozen_form_knows_nothing_of_ours(module: object) -> None:
    source = Path(str(module.__file__)).read_text()  # type: ignore[attr-defined]
    assert "paradigms" not in source
    assert "harness" not in source


@pytest.mark.parametrize("case", list_cases(SETTING, (TINY,))[:-4], ids=lambda case: case.id)
def test_every_case_runs_or_says_why_not(case: Case) -> None:
    if case.backend == "flex":
        pytest.skip("compiles for half a minute")
    found = probe_case(lambda _: None, case, SETTING)
    if isinstance(found, str):
        assert found.startswith("not supported: ")
    else:
        assert found.multiply_adds
        assert found.inputs > 0 < found.outputs
        assert 0 <= found.saved_beyond_inputs <= found.saved


def test_nattens_row_states_the_version_and_the_backend_that_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in its place: the backend that it chooses is the one that computes and the one that the row states."""
    asked: list[str] = []

    def na2d(q: Tensor, k: Tensor, v: Tensor, *, kernel_size: int, backend: str) -> Tensor:
        asked.append(backend)
        return q + k + v + kernel_size

    backends = SimpleNamespace(choose_backend=lambda *_, torch_compile: "cutlass-fna" if torch_compile else "flex-fna")
    monkeypatch.setitem(sys.modules, "natten", SimpleNamespace(na2d=na2d, __version__="0.21.7"))
    monkeypatch.setitem(sys.modules, "natten.backends", backends)
    (case,) = (case for case in list_cases(SETTING, (TINY,)) if case.backend == "natten")
    found = probe_case(lambda _: None, case, SETTING)
    assert isinstance(found, Probe)
    assert set(asked) == {"flex-fna"}
    assert Result(case, found).note == "NATTEN 0.21.7, backend flex-fna; forward alone"


def test_the_small_model_of_laptop_trains() -> None:
    ours, theirs = (case for case in list_cases(SETTING, ()) if case.operator == "laptop")
    for case in (ours, theirs):
        small = case.to_single_image()
        workload = small.build(small, SETTING)
        assert workload.train is not None
        before = [leaf.clone() for leaf in workload.leaves]
        workload.train()
        assert any(not torch.equal(old, new) for old, new in zip(before, workload.leaves, strict=True))


def test_saved_tensors_are_counted_once_and_inputs_apart() -> None:
    case = Case("mix", "torch", TINY, next(c for c in list_cases(SETTING, (TINY,)) if c.id == "mix/torch/s1").build)
    found = probe_case(lambda _: None, case, SETTING)
    assert isinstance(found, Probe)
    assert found.saved == found.inputs
    assert found.saved_beyond_inputs == 0


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["torch/s1"], {"torch", "s1"}),
        (["net7/frozen"], {"net7", "frozen"}),
        (["window_core/shifted"], {"window_core", "shifted"}),
    ],
)
def test_cases_are_chosen_by_any_part_of_their_names(names: list[str], expected: set[str]) -> None:
    cases = list_cases(SETTING)
    chosen = choose_cases(cases, names)
    assert chosen == tuple(case for case in cases if expected <= set(case.parts))
    assert chosen


@pytest.mark.parametrize(
    ("name", "expected"),
    [("net7n", "did you mean 'net7_n'"), ("net7_n/trch", "did you mean 'torch'"), ("mix/timm", "no case has all")],
)
def test_an_unknown_case_is_one_message_with_the_nearest_name(
    name: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--only", name]) == 2
    assert expected in capsys.readouterr().err


def test_a_quick_look_leaves_out_what_takes_long() -> None:
    cases = list_cases(SETTING)
    quick = choose_cases(cases, (), quick=True)
    assert set(quick) == {case for case in cases if not case.is_slow}
    assert "net7_n/unfold/s1" in {case.id for case in cases} - {case.id for case in quick}


def test_listing_measures_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--only", "dwconv"]) == 0
    assert capsys.readouterr().out.splitlines()[:1] == ["dwconv/torch/s1"]


@pytest.mark.parametrize(
    ("value", "sense", "expected"),
    [
        (0.9, Sense.AT_MOST, Verdict.MET_AIM),
        (1.0, Sense.AT_MOST, Verdict.MET_AIM),
        (1.5, Sense.AT_MOST, Verdict.MET_MUST),
        (2.1, Sense.AT_MOST, Verdict.UNMET),
        (0.9, Sense.AT_LEAST, Verdict.UNMET),
        (2.5, Sense.AT_LEAST, Verdict.MET_AIM),
        (None, Sense.AT_MOST, Verdict.NOT_MEASURED),
        (float("nan"), Sense.AT_MOST, Verdict.UNMET),
    ],
)
def test_a_value_is_judged_by_the_best_bound_it_meets(value: float | None, sense: Sense, expected: Verdict) -> None:
    bounds = Bounds(2.0, 1.0) if sense == Sense.AT_MOST else Bounds(1.0, 2.0)
    assert judge(value, sense, bounds) == expected


def test_nothing_measured_under_load_is_judged() -> None:
    assert judge(0.1, Sense.AT_MOST, Bounds(2.0, 1.0), loaded=True) == Verdict.LOADED


def test_a_goal_without_an_aim_can_be_met_no_better_than_must() -> None:
    assert judge(0.1, Sense.AT_MOST, Bounds(0.35, None)) == Verdict.MET_MUST


def make_result(case_id: str, *seconds: float, saved: int = 0, beyond: int = 0) -> Result:
    """Made-up figures of a case."""
    operator, backend, shape, *variant = case_id.split("/")
    size = replace(TINY, name=shape)
    case = Case(operator, backend, size, build_operator, variant="".join(variant))
    laps = [Lap(number, cpu, cpu / 2) for number, cpu in enumerate(seconds)]
    probe = Probe(saved, beyond, 100, 1000, 500, 10_000, trains=True, seconds=0.1)
    return Result(case, probe, forward=laps, train=laps)


def test_a_ratio_is_of_medians_with_the_quartiles_round_by_round() -> None:
    results = [make_result("net7_n/torch/s1", 2.0, 4.0, 6.0), make_result("net7/frozen/s1", 1.0, 2.0, 2.0)]
    (found,) = (each for each in judge_all(results) if each.ratio.value is not None)
    assert (found.goal, found.shape) == ("Net7-N `torch` / eager window Net7", "s1")
    assert found.ratio == (2.0, 2.0, 2.5, "")
    assert found.verdict == Verdict.MET_AIM


def test_kept_numbers_are_counted_for_each_query_and_head() -> None:
    queries_and_heads = TINY.num_queries * TINY.heads
    results = [make_result("net7_n/cpu/s1", 1.0, beyond=4 * queries_and_heads)]
    found = next(each for each in judge_all(results) if each.quantity == Quantity.KEPT_NUMBERS)
    assert (found.ratio.value, found.verdict) == (1.0, Verdict.MET_AIM)


def test_a_goal_that_is_not_measured_says_why() -> None:
    missing = make_result("net7_n/cpu/s1")
    missing.probe, missing.reason = None, "not supported: no compiler"
    judged = judge_all([missing], reported=(12.0, "from the results"))
    assert {each.verdict for each in judged} == {Verdict.NOT_MEASURED, Verdict.MET_MUST}
    assert "`net7_n/cpu/s1` did not run, see its note" in {each.ratio.note for each in judged}
    assert "no CUDA device" in {each.ratio.note for each in judged}


def test_every_case_that_a_goal_names_is_known_or_waits_for_a_backend() -> None:
    known = {case.id for case in list_cases(SETTING)}
    for goal in GOALS:
        named = {name.format(shape) for name in (goal.numerator, goal.denominator) if name for shape in goal.bounds}
        assert {name for name in named if "/cpu/" not in name} <= known


def test_the_load_of_others_is_what_the_machine_spent_and_we_did_not() -> None:
    assert foreign_cores(Reading(0.0, 10.0, 1.0), Reading(2.0, 13.0, 3.0)) == 0.5
    assert foreign_cores(Reading(0.0, 10.0, 1.0), Reading(2.0, 11.9, 3.0)) == 0.0


def test_a_busy_machine_is_refused_before_anything_is_measured() -> None:
    options = BenchOptions(names=("mix/torch",), shapes=(TINY,), look_seconds=0.01)
    with pytest.raises(LoadError, match=r"others use 0\.50 of a core"):
        next(run_bench(options, read=read_busy))


def test_a_device_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SpecError, match="no CUDA device"):
        BenchOptions(device="cuda").list_cases()


def make_readings(*foreign: float) -> Callable[[], Reading]:
    """What each round is told of others; then they are silent."""
    ticks = count()

    def emit() -> Iterator[Reading]:
        machine = 0.0
        for cores in (*foreign, *[0.0] * 100):
            yield Reading(float(next(ticks)), machine, 0.0)
            machine += cores
            yield Reading(float(next(ticks)), machine, 0.0)

    readings = emit()
    return lambda: next(readings)


@pytest.mark.parametrize(
    ("foreign", "spare", "repeated", "loaded"), [((0.0, 0.5), 2, 1, False), ((0.5, 0.5, 0.5), 1, 1, True)]
)
def test_a_disturbed_round_is_done_again_while_there_are_spare_ones(
    foreign: tuple[float, ...], spare: int, repeated: int, loaded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.timing.time_call", lambda *_, **__: (1.0, 1.0))
    case = Case("net7_n", "torch", TINY, build_operator)
    result = Result(case, Probe(0, 0, 0, 1, 1, 1, trains=True, seconds=0.01))
    rounds = Rounds(2, spare=spare)
    workload = case.build(case, SETTING)
    turns = list(time_rounds([result], [workload], rounds, setting=SETTING, read=make_readings(*foreign)))
    assert (rounds.repeated, rounds.was_loaded, len(result.train)) == (repeated, loaded, 2)
    assert turns[-1].done == pytest.approx(turns[-1].total)


def test_the_training_time_of_table1_is_read_from_its_results(tmp_path: Path) -> None:
    path = tmp_path / "table1.csv"
    assert read_training_minutes(path)[0] is None
    frame = pd.DataFrame({"n": [3, 3], "seconds": [100.0, 140.0], "device": ["a CPU"] * 2, "last_run": ["2026"] * 2})
    frame.to_csv(path)
    assert read_training_minutes(path) == (6.0, "from `results/laptop/table1.md`: a CPU, last run 2026")


def test_a_device_names_its_files() -> None:
    assert to_slug("AMD EPYC (9xx) 2 cores AVX512") == "amd-epyc-9xx-2-cores-avx512"


@pytest.mark.slow
def test_a_benchmark_goes_from_cases_to_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.session.measure_ceiling", lambda _: Ceiling(1e11, 2e10))
    options = BenchOptions(
        names=("net7_n/torch", "net7/frozen", "natten"), repeats=2, device="cpu", shapes=(TINY,), look_seconds=0.0
    )
    with (tmp_path / "log.txt").open("w") as log, open_display(log) as show:
        for event in run_bench(options, read=read_idle):
            show(event)
    assert isinstance(event, Finished)
    report = event.report
    csv, markdown, plot = write_report(report, tmp_path / "bench")
    frame = pd.read_csv(csv, keep_default_na=False)
    assert tuple(frame.columns) == COLUMNS
    assert list(frame["case"]) == ["net7_n/torch/s1", "net7/frozen/s1", "query_key/natten/s1"]
    text = markdown.read_text()
    assert text.index("## Goals") < text.index("## All cases") < text.index("## Where it comes from")
    assert all(goal.name in text for goal in GOALS)
    assert "A part of the benchmark only." in text
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert (csv.name, markdown.name) == (f"{to_slug(report.machine.name)}.csv", f"{plot.stem}.md")
    assert not report.is_result
    assert "[3/3] query_key/natten/s1" in (tmp_path / "log.txt").read_text()


def test_a_loaded_report_says_so_everywhere(tmp_path: Path) -> None:
    results = (make_result("net7_n/torch/s1", 2.0, 4.0), make_result("net7/frozen/s1", 1.0, 2.0))
    facts = dict.fromkeys(("device", "isa", "dtype", "system", "code_digest", "commit", "python", "torch"), "x")
    facts |= {"cores": "2", "dirty": "false", "torchvision": "x", "timm": "x", "numpy": "x", "date": "today"}
    report = Report(
        SETTING, results, tuple(judge_all(list(results), loaded=True)), Ceiling(1e11, 2e10),
        Machine("a CPU", facts, foreign=0.5, repeated_rounds=2), repeats=2, is_whole=True, loaded=True,
    )  # fmt: skip
    assert not report.is_result
    assert "Loaded: not a result. Others used up to 0.50 of a core" in to_text(report)
    assert make_frame(report)["loaded"].all()
    _, markdown, _ = write_report(report, tmp_path)
    assert markdown.read_text().count(Verdict.LOADED.value) == 2
