"""A benchmark case: one operator by one implementation on one shape."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.seeding import seed_for

WINDOW = 7
"""Side of every window and sliding kernel that is measured."""


@dataclass(frozen=True)
class Shape:
    """A batch of maps; of images where a whole model is measured (`heads` is 0 then)."""

    name: str
    batch: int
    height: int
    width: int
    channels: int
    heads: int = 0

    @property
    def map_size(self) -> tuple[int, int, int, int, int]:
        """(batch, height, width, heads, head_dim) of queries, keys and values."""
        return self.batch, self.height, self.width, self.heads, self.channels // self.heads

    @property
    def num_queries(self) -> int:
        """Pixels of the whole batch."""
        return self.batch * self.height * self.width


S1 = Shape("s1", batch=8, height=56, width=56, channels=96, heads=3)
S3 = Shape("s3", batch=8, height=14, width=14, channels=384, heads=12)


@dataclass(frozen=True)
class Setting:
    """Where all cases of one report are computed, and in which numbers."""

    device: str = "cpu"
    dtype: torch.dtype = torch.float32


class Draw:
    """Draws leaf tensors from the normal distribution, the same ones for the same shape."""

    def __init__(self, shape: Shape, setting: Setting) -> None:
        self._generator = torch.Generator().manual_seed(seed_for("bench", shape.name))
        self._setting = setting

    def __call__(self, *size: int, scale: float = 1.0) -> Tensor:
        """One leaf that needs a gradient."""
        values = scale * torch.randn(size, generator=self._generator)
        return values.to(self._setting.device, self._setting.dtype).requires_grad_()


@dataclass(frozen=True)
class Workload:
    """A case ready to run.

    Attributes:
        forward: the forward pass; keeps what its backward pass needs where gradients are enabled.
        train: forward and backward, of a whole model also the optimizer's step; None: it has no backward pass here.
        leaves: every tensor that goes in: inputs, tables, a model's parameters.
        multiply_adds: of the forward pass, the whole batch; None: not counted.
        context: is entered around every run.
        note: what its row says beside the figures, such as a version.
    """

    forward: Callable[[], Tensor]
    train: Callable[[], object] | None
    leaves: Sequence[Tensor]
    multiply_adds: int | None
    context: Callable[[], AbstractContextManager[object]] = nullcontext
    note: str = ""


@dataclass(frozen=True)
class Case:
    """One row of the report.

    Attributes:
        operator: what is computed.
        backend: by whose code.
        shape: on what.
        build: makes the workload; raises ImportError, RuntimeError or ValueError, with the reason, where it cannot.
        variant: what else distinguishes the case.
        isa: the instruction set that the C++ kernels are held to; None: the best one.
        threads: of the CPU.
        is_slow: left out of a quick look.
    """

    operator: str
    backend: str
    shape: Shape
    build: Callable[["Case", Setting], Workload]
    variant: str = ""
    isa: str | None = None
    threads: int = 1
    is_slow: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """What the id is made of."""
        return tuple(part for part in (self.operator, self.backend, self.shape.name, self.variant) if part)

    @property
    def id(self) -> str:
        """`net7_n/torch/s1`."""
        return "/".join(self.parts)

    def to_single_image(self) -> "Case":
        """The same on a batch of one."""
        return replace(self, shape=replace(self.shape, batch=1))


def build_differentiable(  # noqa: D417 - the rest is the workload's
    forward: Callable[[], Tensor],
    leaves: Sequence[Tensor],
    grad: Tensor,
    multiply_adds: int,
    context: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Workload:
    """A workload that trains by differentiating with respect to every leaf.

    Args:
        grad: what arrives at the output.
    """
    gradient = grad.detach()
    return Workload(
        forward, lambda: torch.autograd.grad(forward(), leaves, gradient), leaves, multiply_adds, context=context
    )
