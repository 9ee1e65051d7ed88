import importlib.util
from pathlib import Path
from typing import cast

import pytest

from harness.engines import ENGINES, make_engine
from harness.engines.capacity import Needs
from harness.engines.engine import Job, Resources
from harness.engines.local import LocalEngine, LocalOptions
from harness.engines.options import Setting
from harness.engines.slurm import SlurmOptions
from harness.errors import EngineError, SpecError


@pytest.mark.parametrize(
    ("engine", "text", "message"),
    [
        ("local", "gpu_fracton: 0.5", r":1: gpu_fracton: unknown key 'gpu_fracton'; did you mean 'gpu_fraction'"),
        ("local", "workers: 2\ngpu_fraction: 2.0", r":2: gpu_fraction: .*less than or equal to 1"),
        ("slurm", "cluster: slrum", r":1: cluster: unknown cluster 'slrum'; did you mean 'slurm'"),
        ("ray", "cpus: many", r":1: cpus: must be a whole number"),
    ],
)
def test_a_mistake_in_a_file_of_options_is_told_with_its_place(
    engine: str, text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "options.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=message):
        make_engine(engine, path, folder=tmp_path)


def test_an_unknown_engine_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="unknown engine 'slrm'; did you mean 'slurm'"):
        make_engine("slrm", folder=tmp_path)


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "local"])
def test_an_engine_without_its_package_names_the_extra(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(EngineError, match=rf"pip install 'elsa-ablation\[{engine}\]'"):
        make_engine(engine, folder=tmp_path)


def test_a_machine_without_slurm_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EngineError, match="there is no Slurm on this machine"):
        make_engine("slurm", folder=tmp_path)


@pytest.mark.parametrize(
    ("options", "workers", "expected"),
    [
        (LocalOptions(), 3, 3),
        (LocalOptions(workers=4), None, 4),
        (LocalOptions(), None, 5),
        (LocalOptions(gpus=()), "auto", 8),
        (LocalOptions(cpus=3), "auto", 2),
        (LocalOptions(gpus=(0, 1)), "auto", 2),
        (LocalOptions(gpus=(0, 1), gpu_fraction=0.33), "auto", 6),
        (LocalOptions(gpus=(0, 1), gpu_fraction=0.1), "auto", 8),
    ],
)
def test_workers_are_what_is_asked_for_or_what_fits(
    options: LocalOptions, workers: int | None, expected: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("harness.engines.local.count_cores", lambda: 8)
    assert cast("LocalEngine", options.build(Setting(workers, 5, (), tmp_path))).workers == expected


def test_a_run_of_several_processes_that_is_alone_has_all_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The recipe `imagenet` has one worker, whose run has eight processes."""
    monkeypatch.setattr("harness.engines.local.count_cores", lambda: 8)
    engine = cast("LocalEngine", LocalOptions(gpus=()).build(Setting(None, 1, (), tmp_path)))
    assert engine._capacity.take(Job("large", print, resources=Resources(processes=8))) is not None
    crowded = cast("LocalEngine", LocalOptions(gpus=()).build(Setting(10, 1, (), tmp_path)))
    assert crowded._capacity.cpus == 10


@pytest.mark.parametrize(("workers", "expected"), [(1, 1.0), (2, 1.0), (3, 0.5), (4, 0.5), (5, 1 / 3)])
def test_without_a_stated_share_all_workers_find_room_on_the_gpus(
    workers: int, expected: float, tmp_path: Path
) -> None:
    engine = cast("LocalEngine", LocalOptions(gpus=(0, 1)).build(Setting(workers, 1, (), tmp_path)))
    assert engine._capacity.share.gpus == pytest.approx(expected)
    assert 2 * int(1 / expected + 1e-9) >= workers


def test_a_slurm_job_asks_for_the_needs_of_all_its_processes() -> None:
    options = SlurmOptions(partition="gpu", cpus=4, gpus=1, memory_gb=8.5, sbatch={"mail-type": "FAIL"})
    needs = Needs(processes=2, cpus=8, gpus=1.0, memory_gb=17.0)
    asked = options.to_parameters(needs, 59.5, jobs_at_once=10)
    expected = {"cpus_per_task": 8, "gpus_per_node": 2, "mem": "17000MB", "time": 60, "partition": "gpu", "nodes": 1}
    assert expected.items() <= asked.items()
    assert asked["additional_parameters"] == {"requeue": True, "mail-type": "FAIL"}


def test_submitit_takes_the_parameters_of_a_slurm_job(tmp_path: Path) -> None:
    slurm = pytest.importorskip("submitit.slurm.slurm")
    parameters = SlurmOptions(gpus=1).to_parameters(Needs(1, 1, 1.0, 0.0), 60, jobs_at_once=2)
    text = slurm._make_sbatch_string(command="python", folder=tmp_path, map_count=3, **parameters)
    for line in ("--requeue", "--gpus-per-node=1", "--time=60", "--signal=USR2@120", "--array=0-2%2"):
        assert f"#SBATCH {line}\n" in text
