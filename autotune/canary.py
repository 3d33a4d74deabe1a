"""Work that no template can change: if it gets slower, the machine did."""

from __future__ import annotations

from collections.abc import Callable

_COPY_BYTES = 256 << 20
_GEMM_SIZE = 4096


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
