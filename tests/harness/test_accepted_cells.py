"""Whatever the plan accepts can be built and run, forward and backward: random cells with fixed seeds."""

import random
from typing import Any

import pytest
import torch

from harness.build import build_model
from harness.cell import Cell
from harness.errors import SpecError
from harness.plan import make_plan
from harness.reading import load_spec
from harness.spec import BackbonesSpec, CellSpec, ExperimentSpec, RowSpec
from paradigms.config import PROJECTIONS, TERMS
from paradigms.facts import NEIGHBORHOODS, NORMALIZATIONS, PARAMETERIZATIONS

SIZES = 1, 1, 2, 2, 3, 4, 5, 7, 9
ODD_SIZES = 1, 1, 3, 3, 5, 7, 9


@pytest.fixture(scope="module")
def smoke() -> ExperimentSpec:
    return load_spec("experiments/table1.yaml", recipe="smoke")


class _Draws:
    """Draws one row with its backbone and data: small, mostly sensible, often at the edge of what is possible."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.choose = self.random.choice

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def size(self, sizes: tuple[int, ...]) -> int | tuple[int, int]:
        return self.choose(sizes) if self.chance(0.6) else (self.choose(sizes), self.choose(sizes))

    def operator(self) -> dict[str, Any]:
        generated = [name for name in PARAMETERIZATIONS if name not in TERMS]
        terms = tuple(term for term in TERMS if self.chance(0.5)) or TERMS[:1]
        parameterization = terms if self.chance(0.6) else (self.choose(generated),)
        is_free = parameterization == terms or self.chance(0.1)
        neighborhood = self.choose(list(NEIGHBORHOODS)) if is_free else "sliding_window"
        others = ["channel_filter"] if neighborhood == "sliding_window" else []
        aggregation = self.choose(["weighted_sum", "ghost_head", "ghost_head", *others])
        fields: dict[str, Any] = {
            "parameterization": parameterization,
            "normalization": self.choose(list(NORMALIZATIONS)),
            "neighborhood": neighborhood,
            "aggregation": aggregation,
            "projections": self.choose([*PROJECTIONS, "linear", "linear"]),
            "backend": self.choose([*["auto"] * 8, "reference", "torch", "torch", "cpu", "dense"]),
            **getattr(self, neighborhood)(),
        }
        if self.chance(0.8):
            fields["border"] = self.choose(NEIGHBORHOODS[neighborhood].borders)
        if aggregation == "ghost_head":
            fields |= {"ghost_lambda": self.choose([0.0, 0.5, 1.0]), "ghost_gamma": self.choose([0.0, 1.0])}
            fields |= {"ghost_heads": self.choose(["C", "C", "2x", 1, 3, 4])}
            fields |= {"ghost_map": self.choose(["grouped", "interleaved"])}
        if aggregation == "channel_filter":
            fields |= {"combine": self.choose(["mul", "add"]), "se_ratio": self.choose([0.2, 0.01])}
        if parameterization == ("hadamard_conv",):
            fields |= {"group_width": self.choose([1, 2, 4])}
        return fields

    def local_window(self) -> dict[str, Any]:
        shift = {"shift_size": self.choose([0, 1, 2])} if self.chance(0.4) else {}
        return {"window_size": self.size(SIZES), **shift}

    def sliding_window(self) -> dict[str, Any]:
        return {"kernel_size": self.size(ODD_SIZES), "dilation": self.size(SIZES) if self.chance(0.3) else 1}

    def sliding_chunk(self) -> dict[str, Any]:
        return {"chunk_size": self.size(SIZES[:7]), "exact": self.chance(0.4)}

    def row(self) -> dict[str, Any]:
        heads = {"heads": self.choose(["1x", "1x", "2x", "C", 1, 2, 3])}
        operator = self.operator()
        if self.chance(0.2):
            return {"backbone": "swin", **heads, "stages": {self.choose(["all", "last", "not_last", 1]): operator}}
        return {"backbone": self.choose(["swin", "swin", "volo", "deit"]), **heads, **operator}

    def backbone(self, name: str) -> dict[str, Any]:
        shared = {
            "patch_size": self.choose([2, 4]),
            "qkv_bias": self.chance(0.7),
            "mlp_ratio": self.choose([0.5, 1.0, 2.0]),
            "weight_init": self.choose(["", "jax", "moco", "reset"]),
        }
        heads = tuple(self.choose([1, 1, 2, 3]) for _ in range(self.choose([1, 2, 3])))
        depths = tuple(self.choose([1, 2]) for _ in heads)
        own: dict[str, dict[str, Any]] = {
            "swin": {"embed_dim": self.choose([2, 4, 6, 12]), "depths": depths, "num_heads": heads, "window_size": 3},
            "volo": {
                "stem_hidden_dim": 8,
                "layers": (self.choose([1, 2]), 1),
                "embed_dims": (self.choose([4, 12]), 8),
                "num_heads": (self.choose([1, 2]), 2),
            },
            "deit": {"embed_dim": self.choose([2, 6, 12]), "depth": self.choose([1, 2]), "num_heads": heads[:1]},
        }
        return {**shared, **own[name]}


def _plan(smoke: ExperimentSpec, seed: int) -> Cell:
    """The cell of a random row; raises what the plan says where it refuses it."""
    draws = _Draws(seed)
    row = draws.row()
    sizes = draws.backbone(row["backbone"])
    recipe = smoke.recipe
    data = recipe.data.model_copy(update={"image_size": sizes["patch_size"] * draws.choose([1, 2, 3, 4, 5])})
    training = recipe.training.model_copy(update={"batch_size": draws.choose([1, 2, 3])})
    backbones = BackbonesSpec.model_validate({row["backbone"]: sizes})
    changed = recipe.model_copy(
        update={"backbones": backbones, "data": data, "training": training, "floor_width": None}
    )
    rows = {"row": RowSpec.model_validate(row)}
    spec = smoke.model_copy(update={"recipe": changed, "cell": CellSpec(), "rows": rows, "baseline": None})
    return make_plan(spec).rows[0].cell


def _train_a_step(cell: Cell) -> None:
    data, batch_size = cell.data, cell.training.batch_size
    model = build_model(cell, replicate=None).train()
    images = torch.randn(batch_size, data.channels, data.image_size, data.image_size)
    logits = model(images)
    assert logits.shape == (batch_size, data.num_classes)
    assert bool(logits.isfinite().all())
    logits.square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def _check_seeds(smoke: ExperimentSpec, seeds: range) -> float:
    """The part of the cells that the plan accepts; each of them takes a step of training."""
    accepted = 0
    for seed in seeds:
        torch.manual_seed(seed)
        try:
            cell = _plan(smoke, seed)
        except SpecError:
            continue
        accepted += 1
        try:
            _train_a_step(cell)
        except Exception as error:
            raise AssertionError(f"the plan accepts the cell of seed {seed}, which does not train: {cell}") from error
    return accepted / len(seeds)


def test_some_random_cells_that_the_plan_accepts_train(smoke: ExperimentSpec) -> None:
    assert _check_seeds(smoke, range(10)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 1600, 400))
def test_random_cells_that_the_plan_accepts_train(smoke: ExperimentSpec, first: int) -> None:
    """Of 1600 cells more than 500 are accepted."""
    assert _check_seeds(smoke, range(first, first + 400)) > 0.32
