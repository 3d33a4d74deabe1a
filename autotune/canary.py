"""Work that no template can change: if it gets slower, the machine did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_COPY_BYTES = 256 << 20
_GEMM_SIZE = 4096
_LARGE_COPY_BYTES = 2 << 30
_LARGE_GEMM_SIZE = 8192


def canaries(device: str) -> dict[str, Callable[[], object]]:
    """Launch a copy, bound by bandwidth, or a matrix product, bound by the matrix units."""
    import torch

    source = torch.empty(_COPY_BYTES, dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    generator = torch.Generator(device=device).manual_seed(0)
    shape = (_GEMM_SIZE, _GEMM_SIZE)
    # Random numbers, never zeros: matrix units draw less power on those and run faster.
    a, b = (torch.randn(shape, generator=generator, device=device).bfloat16() for _ in range(2))
    return {"copy": lambda: target.copy_(source), "gemm": lambda: a @ b}


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Work that reaches what the machine can do."""

    launch: Callable[[], object]
    amount: float
    """Done by one launch, in units of which a microsecond's worth is the name's unit."""


def ceilings(device: str) -> dict[str, Ceiling]:
    """A copy in gigabytes per second (`copy_gbs`), a bf16 product in TFLOP/s (`gemm_tflops`)."""
    import torch

    source = torch.empty(_LARGE_COPY_BYTES, dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    generator = torch.Generator(device=device).manual_seed(0)
    shape = (_LARGE_GEMM_SIZE, _LARGE_GEMM_SIZE)
    a, b = (torch.randn(shape, generator=generator, device=device).bfloat16() for _ in range(2))
    return {
        "copy_gbs": Ceiling(lambda: target.copy_(source), 2 * _LARGE_COPY_BYTES / 1e3),
        "gemm_tflops": Ceiling(lambda: a @ b, 2.0 * _LARGE_GEMM_SIZE**3 / 1e6),
    }
