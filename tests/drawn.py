"""Where numbers are drawn: a generator of a GPU draws there only, and is not to be had here."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

DRAWS = (torch.randn, torch.rand, torch.randint)  # without a device they draw on the CPU


class NamedDevices(TorchFunctionMode):
    """Inside `with`, what is drawn by a generator must name its device; `count` are such draws."""

    count = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if func in DRAWS and named.get("generator") is not None:
            assert named.get("device") == named["generator"].device
            self.count += 1
        return func(*args, **named)
