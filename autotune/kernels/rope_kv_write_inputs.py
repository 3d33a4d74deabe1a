"""Inputs of rotation with the cache write, hard and plain, and the right answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from autotune.kernels.dtypes import torch_dtype
from autotune.kernels.output_buffer import output_buffer
from autotune.kernels.quantisation import LARGEST_CODE, code_dtype, dequantise
from autotune.kernels.rope_kv_write_problem import RopeProblem
from autotune.kernels.spec import Inputs

if TYPE_CHECKING:
    import torch

BLOCK_SIZE = 16
"""Tokens per page in checks: an argument of the launch, not of the binary."""
_MARGIN = 8
"""Dimensions of NaN after the heads of each token in checks."""
_KEPT = 3.0
"""What slots hold that nobody writes to; as a scale and as a code it is itself."""
_LOUDEST = 6.0
"""About the largest of the numbers drawn: what scales of heads are made for."""


def make_inputs(problem: RopeProblem, seed: int, device: str) -> Inputs:
    """Packed queries, keys and values between NaNs, tokens scattered over a pool, one nowhere.

    Keys and values of a page follow one another, so that pages lie further apart than their tokens
    take. Slots to be written are poison; all others hold a number that must stay. Angles of
    positions that no token has are NaN.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    tokens, pages = problem.num_tokens, problem.num_tokens // BLOCK_SIZE + 2
    slots = torch.randperm(pages * BLOCK_SIZE, generator=generator)[:tokens]
    inputs = _outputs(problem, pages, BLOCK_SIZE, device)
    for name in ("k_cache", "v_cache", *(("k_scale", "v_scale") if _finds(problem) else ())):
        # In two steps: float8 can be filled but not indexed.
        raw = inputs[name].view(torch.uint8) if "cache" in name else inputs[name]
        kept = torch.full_like(inputs[name], _KEPT).view(raw.dtype)
        for token in slots.tolist()[:-1]:
            place = token // BLOCK_SIZE, token % BLOCK_SIZE
            kept[place] = raw[place]
        raw.copy_(kept)
    slots[-1:] = -1
    heads = problem.num_heads + 2 * problem.num_kv_heads
    packed = torch.full((tokens, heads * problem.head_dim + _MARGIN), math.nan)
    packed[:, :-_MARGIN] = torch.randn(tokens, heads * problem.head_dim, generator=generator)
    packed[1::3] *= 0.0 if problem.kv_scale == "token" else 1.0
    _add_heads(inputs, problem, packed.to(torch_dtype(problem.dtype)).to(device)[:, :-_MARGIN])
    inputs["slots"] = slots.to(device)
    if problem.rotated:
        most = 2 * tokens + 3
        positions = torch.randint(0, most, (tokens,), generator=generator)
        table = torch.full((most, 2, problem.rotary_dim // 2), math.nan)
        table[positions] = _angles(problem, positions)
        inputs["positions"] = positions.to(device)
        inputs["table"] = table.to(torch_dtype(problem.dtype)).to(device)
    return inputs


def bench_inputs(problem: RopeProblem, seed: int, device: str) -> Inputs:
    """Normal numbers; tokens fill a pool in random order."""
    import torch

    generator = torch.Generator(device).manual_seed(seed)
    tokens = problem.num_tokens
    block_size = BLOCK_SIZE if tokens % BLOCK_SIZE == 0 else 1
    inputs = _outputs(problem, tokens // block_size, block_size, device)
    width = (problem.num_heads + 2 * problem.num_kv_heads) * problem.head_dim
    packed = torch.empty((tokens, width), dtype=torch_dtype(problem.dtype), device=device)
    _add_heads(inputs, problem, packed.normal_(generator=generator))
    order = torch.randperm(tokens, generator=torch.Generator().manual_seed(seed))
    inputs["slots"] = order.to(device)
    if problem.rotated:
        positions = torch.arange(tokens)
        inputs["positions"] = positions.to(device)
        inputs["table"] = _angles(problem, positions).to(torch_dtype(problem.dtype)).to(device)
    return inputs


def _finds(problem: RopeProblem) -> bool:
    return problem.kv_scale == "token"


def _outputs(problem: RopeProblem, pages: int, block_size: int, device: str) -> Inputs:
    import torch

    kind = torch_dtype(problem.dtype)
    cache = kind if problem.kv_dtype == "same" else code_dtype(problem.kv_dtype)
    heads, dim = problem.num_kv_heads, problem.head_dim
    pieces: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        "pool": ((pages, 2, block_size, heads, dim), cache)
    }
    if problem.rotated:
        pieces["rotated"] = ((problem.num_tokens, problem.num_heads, dim), kind)
    if _finds(problem):
        for name in ("k_scale", "v_scale"):
            pieces[name] = ((pages, block_size, heads), torch.float32)
    inputs = output_buffer(pieces, device)
    pool = inputs.pop("pool")
    inputs["k_cache"], inputs["v_cache"] = pool[:, 0], pool[:, 1]
    if problem.kv_scale == "head":
        steps = 1.0 + 0.1 * torch.arange(heads, dtype=torch.float32, device=device)
        inputs["k_scale"] = _LOUDEST / LARGEST_CODE[problem.kv_dtype] * steps
        inputs["v_scale"] = inputs["k_scale"].flip(0)
    return inputs


def _add_heads(inputs: Inputs, problem: RopeProblem, packed: torch.Tensor) -> None:
    heads = packed.unflatten(1, (-1, problem.head_dim))
    sizes = (problem.num_heads, problem.num_kv_heads, problem.num_kv_heads)
    q, inputs["k"], inputs["v"] = heads.split(sizes, dim=1)
    if problem.rotated:
        inputs["q"] = q


def _angles(problem: RopeProblem, positions: torch.Tensor) -> torch.Tensor:
    """Cosines and sines, fp32 [positions, 2, rotary_dim / 2]."""
    import torch

    half = problem.rotary_dim // 2
    angles = positions[:, None] * 10_000.0 ** (-torch.arange(half) / half)
    return torch.stack((angles.cos(), angles.sin()), dim=1).float()


def rotate(problem: RopeProblem, x: torch.Tensor, inputs: Inputs) -> torch.Tensor:
    """Pairs as complex numbers times e^(i angle), in fp64: [num_tokens, heads, head_dim]."""
    import torch

    x = x.double()
    if not problem.rotated:
        return x
    half = problem.rotary_dim // 2
    turned, rest = x[..., : 2 * half], x[..., 2 * half :]
    angles = inputs["table"][inputs["positions"]].double()  # [num_tokens, 2, half]
    turns = torch.complex(angles[:, 0], angles[:, 1])[:, None]
    shape = (2, half) if problem.style == "half" else (half, 2)
    axis = -2 if problem.style == "half" else -1
    a, b = turned.unflatten(-1, shape).unbind(axis)
    product = torch.complex(a, b) * turns
    pairs = torch.stack((product.real, product.imag), dim=axis)
    return torch.cat((pairs.flatten(-2), rest), dim=-1)


def reference(problem: RopeProblem, inputs: Inputs) -> torch.Tensor:
    """Rotated queries, then the pools of keys and of values, fp64 [rows, head_dim]."""
    import torch

    parts = [rotate(problem, inputs["q"], inputs)] if problem.rotated else []
    for name, new in (("k", rotate(problem, inputs["k"], inputs)), ("v", inputs["v"].double())):
        cache = _pool(problem, inputs, name).flatten(0, 1)
        written = inputs["slots"] >= 0
        cache[inputs["slots"][written]] = new[written]
        parts.append(cache)
    return torch.cat([part.flatten(0, 1) for part in parts])


def values(problem: RopeProblem, inputs: Inputs) -> torch.Tensor:
    """The same of what is in the outputs."""
    import torch

    parts = [inputs["rotated"].double()] if problem.rotated else []
    parts += [_pool(problem, inputs, name).flatten(0, 1) for name in ("k", "v")]
    return torch.cat([part.flatten(0, 1) for part in parts])


def _pool(problem: RopeProblem, inputs: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    """A copy of the keys or values in the cache, fp64 [pages, block_size, heads, head_dim]."""
    cache = inputs[f"{name}_cache"]
    if problem.kv_dtype == "same":
        return cache.double()
    return dequantise(cache, inputs[f"{name}_scale"])
