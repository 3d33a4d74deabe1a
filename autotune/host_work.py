"""What a host function does with tensors, beside starting kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_EMPTY = torch.ops.aten.empty.memory_format
_ALIASING = (torch.ops.aten.view.dtype, torch.ops.aten.detach.default)


class HostWork(TorchDispatchMode):  # type: ignore[misc]
    """Notes PyTorch's operations while it is entered.

    Repeating the kernels alone repeats the function if all it did was to take memory without
    saying what is in it, and to look at a tensor's bytes as another type.
    """

    def __init__(self) -> None:
        """Nothing seen yet."""
        super().__init__()
        self.taken: list[torch.Tensor] = []
        """Results of `torch.empty`."""
        self.aliases: list[tuple[torch.Tensor, torch.Tensor]] = []
        """(result, x) of `x.view(dtype)`."""
        self.is_repeatable = True
        """Whether nothing else was done."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and note it."""
        result = func(*args, **(kwargs or {}))
        if func is _EMPTY:
            self.taken.append(result)
        elif func in _ALIASING:  # the latter is done by the former, behind its back
            self.aliases.append((result, args[0]))
        else:
            self.is_repeatable = False
        return result

    def source(self, tensor: Any) -> Any:
        """Return the tensor whose bytes another's are, or itself."""
        for alias, base in self.aliases:
            if alias is tensor:
                return self.source(base)
        return tensor
