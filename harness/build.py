"""Builds torch modules from cells. The only module that builds operators of `paradigms` for training."""

from collections.abc import Callable
from typing import Any, cast

import torch
from timm.models.vision_transformer import get_init_weights_vit
from torch import nn

from harness.cell import Cell
from harness.floors import FLOORS
from harness.seeding import seed_for
from harness.spec import BackboneSpec
from harness.stages import StageInfo
from harness.tasks import TASKS
from paradigms import kernels
from paradigms.backbones import BACKBONES, OperatorStages
from paradigms.batch_norm import BatchNorm, SynchronizedBatchNorm
from paradigms.functional import make_neighbors

TORCH_RULE = "reset"
"""timm's name for torch's own initialization, which the floors have."""


def build_model(cell: Cell, *, replicate: int | None, device: torch.device | str = "cpu") -> nn.Module:
    """Build the model of a cell: images (batch, channels, side, side) to (batch, outputs), such as logits of classes.

    Args:
        cell: what to build.
        replicate: whose initial weights to draw: two cells draw the same values for parameters that they share by name
            and shape. None leaves them as the constructors made them, which is all that the meta device needs.
        device: where the parameters live; `meta` builds shapes alone.

    Raises:
        ValueError: the operator does not fit the backbone.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta" if str(device) == "meta" else "cpu"):
        is_floor, task = cell.backbone in FLOORS, TASKS[cell.data.task]
        model = _build_floor(cell) if is_floor else task.build_model(_build_backbone(cell), cell.data, cell.framework)
        if replicate is not None:
            name = TORCH_RULE if is_floor else cast("BackboneSpec", cell.sizes).weight_init
            initialize(model, replicate, task.make_rule(get_init_weights_vit(name)))
    return model if str(device) == "meta" else model.to(device)


def _build_backbone(cell: Cell) -> nn.Module:
    return BACKBONES[cell.backbone](**to_arguments(cell), attention=cell.attention)


def count_outputs(cell: Cell) -> int:
    """How many numbers the head of a cell's model has."""
    return TASKS[cell.data.task].count_outputs(cell.data)


def _build_floor(cell: Cell) -> nn.Module:
    shape = (cell.data.channels, cell.data.image_size, cell.data.image_size)
    return FLOORS[cell.backbone](shape, count_outputs(cell), **cell.sizes.model_dump())


def to_arguments(cell: Cell) -> dict[str, Any]:
    """Arguments of the backbone's constructor, by timm's names, without the operators."""
    return {
        **cell.sizes.model_dump(exclude={"initialization"}),  # each operator has its own
        "img_size": cell.data.image_size,
        "in_chans": cell.data.channels,
        "num_classes": count_outputs(cell),
        "num_heads": cell.num_heads,
        **TASKS[cell.data.task].backbone_arguments,
    }


def initialize(model: nn.Module, replicate: int, rule: Callable[[nn.Module, str], None]) -> None:
    """Draw every parameter by a rule under a seed of its own name, so that rows start alike where they can.

    The rule gets a module and its path. A module is drawn once for each of its parameters, and that parameter's values
    are kept.
    """
    with torch.no_grad():
        for path, module in model.named_modules():
            parameters = dict(module.named_parameters(recurse=False))
            drawn = {}
            for name, parameter in parameters.items():
                torch.manual_seed(seed_for("init", f"{path}.{name}", replicate))
                rule(module, path)
                drawn[name] = parameter.clone()
            for name, values in drawn.items():
                parameters[name].copy_(values)


def synchronize_batch_norm(model: nn.Module) -> nn.Module:
    """The model with batch norm over the images of all ranks; parameters, buffers and their names stay as they are."""
    ours = [name for name, module in model.named_modules() if isinstance(module, BatchNorm)]
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for name in ours:
        model.get_submodule(name).__class__ = SynchronizedBatchNorm
    return model


def describe_kernels(device: torch.device) -> str:
    """Which kernels `auto` prefers on a device: their rounding is part of a run's numbers."""
    return kernels.describe_preferred(device)


def describe_stages(cell: Cell) -> list[StageInfo]:
    """What the queries of each stage with an operator see; nothing for a floor."""
    if cell.backbone in FLOORS:
        return []
    with torch.device("meta"):
        model = _build_backbone(cell)
    found: dict[int, StageInfo] = {}
    for stage, (height, width), operator in cast("OperatorStages", model).operators():
        geometry, config = operator.neighborhood.geometry, cell.attention[stage - 1]
        assert config is not None
        index, valid, _ = make_neighbors(geometry, height, width)
        seen = valid & (index < height * width)
        info = StageInfo(
            stage,
            (height, width),
            config.neighborhood,
            geometry.kernel_size,
            (geometry.shift,),
            (float(seen.float().mean()),),
            is_global=bool((seen.sum(dim=-1) == height * width).all()),
        )
        found[stage] = _join(found[stage], info) if stage in found else info
    return list(found.values())


def _join(stage: StageInfo, block: StageInfo) -> StageInfo:
    if block.shifts[0] in stage.shifts:
        return stage
    return StageInfo(
        stage.stage,
        stage.map_size,
        stage.neighborhood,
        stage.size,
        stage.shifts + block.shifts,
        stage.inside + block.inside,
        is_global=stage.is_global and block.is_global,
    )
