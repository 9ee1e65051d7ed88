"""Cases that train whole models: Swin-T and the Swin of the recipe `laptop`, ours and timm's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from timm.models import swin_transformer as timm_swin
from timm.optim import create_optimizer_v2, param_groups_weight_decay
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW, Optimizer

from benchmarks.case import Case, Draw, Setting, Shape, Workload
from harness.build import build_model
from harness.cell import Cell
from harness.optim import FUSED, build_optimizer, peak_lr
from harness.plan import make_plan
from harness.reading import load_spec
from harness.seeding import seed_for
from paradigms.backbones import SwinTransformer
from paradigms.presets import PRESETS

SWIN_T: dict[str, Any] = {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)}
TIMM_TABLE = "relative_position_bias_table"


def make_image_shape(batch: int) -> Shape:
    """Images as Swin-T takes them."""
    return Shape("224", batch, 224, 224, 3)


def make_laptop_shape() -> Shape:
    """A batch of the recipe `laptop`."""
    cell = _load_laptop()
    size = cell.data.image_size
    return Shape(str(size), cell.training.batch_size, size, size, cell.data.channels)


def _load_laptop() -> Cell:
    """The preset `swin` under the recipe `laptop`: the first row of Table 1."""
    return make_plan(load_spec(Path("experiments/table1.yaml"), recipe="laptop")).rows[0].cell


def build_swin_t(case: Case, setting: Setting) -> Workload:
    """Swin-T as timm has it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("bench", "swin_t"))
        model = timm_swin.SwinTransformer(num_classes=1000, drop_path_rate=0.0, **SWIN_T)
    return _train(model, case, setting, lambda model: AdamW(model.parameters(), lr=1e-4, fused=True))


def build_net7_n(case: Case, setting: Setting) -> Workload:
    """Swin-T with Net7-N in three stages, and Net7 in the last, whose map one window covers."""
    stages = [PRESETS[name].config for name in ("net7_n", "net7_n", "net7_n", "net7")]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("bench", "swin_t"))
        model = SwinTransformer(attention=stages, num_classes=1000, drop_path_rate=0.0, **SWIN_T)
    return _train(model, case, setting, lambda model: AdamW(model.parameters(), lr=1e-4, fused=True))


def build_laptop(case: Case, setting: Setting) -> Workload:
    """Our preset `swin` under the recipe `laptop`."""
    cell = _load_laptop()
    model = build_model(cell, replicate=0)
    return _train(model, case, setting, lambda model: build_optimizer(model, cell.training), cell)


def build_timm_laptop(case: Case, setting: Setting) -> Workload:
    """The same sizes and optimizer in timm's own Swin; its tables are treated as ours are."""
    cell = _load_laptop()
    sizes = {**cell.sizes.model_dump(exclude={"initialization"}), "num_heads": cell.num_heads}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("bench", "laptop"))
        model = timm_swin.SwinTransformer(
            img_size=cell.data.image_size, in_chans=cell.data.channels, num_classes=cell.data.num_classes, **sizes
        )
    return _train(model, case, setting, lambda model: _build_timm_optimizer(model, cell), cell)


def _build_timm_optimizer(model: nn.Module, cell: Cell) -> Optimizer:
    """As `harness.optim` builds it, with timm's name of the position table."""
    training = cell.training
    tables = {name for name, _ in model.named_parameters() if name.endswith(TIMM_TABLE)}
    groups = param_groups_weight_decay(model, training.weight_decay, no_weight_decay_list=tables, fallback_list=tables)
    options: dict[str, Any] = {"fused": True} if training.opt in FUSED else {}
    return create_optimizer_v2(groups, opt=training.opt, lr=peak_lr(training), **options)


def _train(
    model: nn.Module,
    case: Case,
    setting: Setting,
    build: Callable[[nn.Module], Optimizer],
    cell: Cell | None = None,
) -> Workload:
    """Steps on one random batch: forward, loss, backward, clipping where the recipe has it, optimizer."""
    shape, clip = case.shape, None if cell is None else cell.training.clip_grad
    classes = 1000 if cell is None else cell.data.num_classes
    model = model.to(setting.device).train()
    images = Draw(shape, Setting(setting.device))(shape.batch, shape.channels, shape.height, shape.width).detach()
    labels = torch.arange(shape.batch, device=setting.device) % classes
    optimizer = build(model)

    def forward() -> Tensor:
        with torch.autocast(setting.device, dtype=torch.bfloat16, enabled=setting.dtype != torch.float32):
            return cast("Tensor", model(images))

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(forward().float(), labels).backward()
        if clip is not None:
            clip_grad_norm_(model.parameters(), clip, foreach=True)
        optimizer.step()

    return Workload(forward, step, [images, *model.parameters(), *model.buffers()], None)
