import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.build import build_model
from harness.cell import Cell
from harness.commands.forecast import Forecast, can_forecast, forecast_memory
from harness.spec import DataSpec, SwinSpec, TrainingSpec
from paradigms.config import make_config
from paradigms.presets import get_preset

ROOT = Path(__file__).parents[3]
V100 = 32e9
SMALL = SwinSpec(patch_size=2, embed_dim=32, depths=(2, 2), num_heads=(2, 4))
SWIN_T = SwinSpec(patch_size=4, embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), drop_path_rate=0.1)
IMAGENET = DataSpec(name="image_folder", num_classes=1000, channels=3, image_size=224, val_images=0)
SMALL_IMAGES = DataSpec(name="image_folder", num_classes=10, channels=3, image_size=56, val_images=0)


def make_cell(fields: dict[str, Any], **training: Any) -> Cell:
    """A small Swin under one operator."""
    settings = TrainingSpec(**{"lr": 1e-3, "batch_size": 32, "epochs": 1, **training})
    return Cell("swin", SMALL, (make_config(fields),) * 2, SMALL.num_heads, SMALL_IMAGES, settings)


def forecast_swin_t(preset: str, heads: str, backend: str) -> Forecast:
    """At 128 images under mixed precision, for a GPU."""
    config = make_config({"backend": backend}, base=get_preset(preset).config)
    num_heads = {"2x": tuple(2 * heads for heads in SWIN_T.num_heads), "C": SWIN_T.widths}[heads]
    training = TrainingSpec(lr=1e-3, batch_size=1024, epochs=1, precision="float16")
    return forecast_memory(Cell("swin", SWIN_T, (config,) * 4, num_heads, IMAGENET, training), num_images=128)


def measure(cell: Cell, num_images: int) -> int:
    """By how many bytes the memory of a process grows that trains; large tensors are handed back when freed."""
    script = ROOT / "tests" / "harness" / "commands" / "measure_step.py"
    done = subprocess.run(
        [sys.executable, script, pickle.dumps(cell).hex(), str(num_images)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    ("fields", "precision"),
    [
        pytest.param({}, "float32", id="window"),
        pytest.param({}, "bfloat16", id="window, mixed precision"),
        pytest.param({"backend": "torch"}, "float32", id="window by dense products"),
        pytest.param({"neighborhood": "sliding_window"}, "float32", id="sliding, fused"),
        pytest.param(
            {"neighborhood": "sliding_window", "normalization": "filter_norm"}, "float32", id="sliding, composed"
        ),
        pytest.param({"neighborhood": "sliding_window", "backend": "dense"}, "float32", id="dense"),
        pytest.param({"neighborhood": "sliding_window", "backend": "dense"}, "bfloat16", id="dense, mixed precision"),
    ],
)
def test_the_forecast_is_within_15_percent_of_what_a_process_holds(fields: dict[str, Any], precision: str) -> None:
    cell = make_cell(fields, precision=precision)
    forecast = forecast_memory(cell, num_images=32, device="cpu")
    measured = measure(cell, 32)
    assert forecast.total == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize(
    ("preset", "heads", "backend", "fits"),
    [
        pytest.param("swin_n", "C", "dense", False, id="as many heads as channels, dense maps"),
        pytest.param("swin", "C", "torch", False, id="as many heads as channels, windows", marks=pytest.mark.slow),
        pytest.param("swin", "2x", "auto", True, id="twice the heads, windows", marks=pytest.mark.slow),
        pytest.param("swin_n", "2x", "auto", True, id="twice the heads, fused", marks=pytest.mark.slow),
        pytest.param("swin_n", "C", "auto", True, id="as many heads as channels, fused"),
    ],
)
def test_memory_runs_out_where_figure_2_says_so(preset: str, heads: str, backend: str, fits: bool) -> None:
    assert (forecast_swin_t(preset, heads, backend).total < V100) == fits


def test_what_is_kept_grows_with_the_batch_and_nothing_else_does() -> None:
    one, four = (forecast_memory(make_cell({}), num_images=count) for count in (1, 4))
    assert four.saved == pytest.approx(4 * one.saved, rel=0.02)
    assert four.images == 4 * one.images
    assert (four.parameters, four.gradients, four.optimizer) == (one.parameters, one.gradients, one.optimizer)


def test_parameters_gradients_and_states_are_counted() -> None:
    model = build_model(make_cell({}), replicate=None, device="meta")
    count = sum(parameter.numel() for parameter in model.parameters())
    plain = forecast_memory(make_cell({}), num_images=1)
    assert (plain.parameters, plain.gradients) == (4 * count, 4 * count)
    assert plain.optimizer == pytest.approx(2 * 4 * count, rel=1e-3)
    assert forecast_memory(make_cell({}, ema_decay=0.99), num_images=1).parameters == 8 * count
    assert forecast_memory(make_cell({}, opt="sgd"), num_images=1).optimizer == 4 * count


@pytest.mark.slow
def test_mixed_precision_keeps_less() -> None:
    half, full = (
        forecast_memory(make_cell({}, precision=precision), num_images=2) for precision in ("float16", "float32")
    )
    assert 0.4 * full.saved < half.saved < 0.9 * full.saved


def test_the_forecast_is_that_of_the_kernels_that_the_cell_names() -> None:
    fused, dense = (
        forecast_memory(make_cell({"neighborhood": "sliding_window", "backend": backend}), num_images=2)
        for backend in ("torch", "dense")
    )
    assert dense.saved > 3 * fused.saved


def test_a_kernel_that_does_not_run_there_is_told() -> None:
    with pytest.raises(ValueError, match="backend 'cpu' does not run on cuda"):
        forecast_memory(make_cell({"backend": "cpu"}), num_images=1)


def test_a_model_computes_after_its_forecast() -> None:
    cell = make_cell({"backend": "torch"})
    forecast_memory(cell, num_images=1, device="cpu")
    logits = build_model(cell, replicate=0)(torch.zeros(1, 3, 56, 56))
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("device", "is_present", "version", "cuda", "expected"),
    [
        ("cpu", False, "2.8.0", "12.8", True),
        ("cuda", True, "2.8.0", "12.8", True),
        ("cuda", False, "2.8.0", "12.8", False),
        ("cuda", False, "2.14.1", None, False),
        ("cuda", False, "2.14.1+cu130", "13.0", True),
    ],
)
def test_a_gpu_that_is_absent_is_forecast_where_torch_does_not_abort(
    monkeypatch: pytest.MonkeyPatch, device: str, is_present: bool, version: str, cuda: str | None, expected: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_present)
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert can_forecast(device) == expected
