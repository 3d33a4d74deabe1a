"""Several outputs of one launch as views of one buffer, which can be poisoned as a whole."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from autotune.kernels.spec import Inputs

if TYPE_CHECKING:
    import torch

_ALIGNMENT = 64
"""Bytes; and at least as many between views, so that a write outside of one spoils no other."""
_POISON = 255
"""As bytes of fp8, fp16, bf16 and fp32 this is NaN; of int8 it is -1."""


def output_buffer(pieces: Mapping[str, tuple[tuple[int, ...], torch.dtype]], device: str) -> Inputs:
    """Allocate outputs of these shapes and dtypes.

    Returns:
        "out": uint8, the whole buffer, all poison; and every piece by its name.
    """
    import torch

    starts, end = {}, 0
    for name, (shape, dtype) in pieces.items():
        starts[name] = end
        end += math.prod(shape) * dtype.itemsize
        end = (end // _ALIGNMENT + 2) * _ALIGNMENT
    buffer = torch.full((end,), _POISON, dtype=torch.uint8, device=device)
    inputs: Inputs = {"out": buffer}
    for name, (shape, dtype) in pieces.items():
        size = math.prod(shape) * dtype.itemsize
        inputs[name] = buffer[starts[name] : starts[name] + size].view(dtype).view(shape)
    return inputs


def is_untouched_between(inputs: Inputs, pieces: Mapping[str, torch.Tensor]) -> bool:
    """Whether all bytes of the buffer that are in none of these views are still poison."""
    import torch

    buffer = inputs["out"]
    outside = torch.ones_like(buffer, dtype=torch.bool)
    for view in pieces.values():
        start = view.data_ptr() - buffer.data_ptr()
        outside[start : start + view.numel() * view.itemsize] = False
    return bool((buffer[outside] == _POISON).all())
