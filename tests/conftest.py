"""One thread a test process: the suite runs in two of them, and results do not depend on the machine's cores."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that train in forked processes come first.

    A compiled model or a forecast of memory registers a device with torch, whose next gradient starts threads for it:
    processes that are forked then cannot compute gradients.
    """
    items.sort(key=lambda item: item.get_closest_marker("forks") is None)


class _NothingToClamp(TorchFunctionMode):
    def __torch_function__(
        self, function: Callable[..., Any], _: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function is Tensor.clamp_ and args[0].is_meta:
            return args[0]
        return function(*args, **(kwargs or {}))


@pytest.fixture
def quick_meta() -> Iterator[None]:
    """Models on the meta device are built in a third of the time.

    timm draws initial weights there too, and clamps them; torch does that for tensors without numbers in Python.
    """
    with _NothingToClamp():
        yield
