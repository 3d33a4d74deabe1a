"""What rotation with the cache write is asked to do, small hard cases, and the right answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from autotune.errors import UsageError
from autotune.kernels.dtypes import DTYPE_BYTES, FLOAT_DTYPES, torch_dtype
from autotune.kernels.output_buffer import output_buffer
from autotune.kernels.quantisation import CODES, LARGEST_CODE, code_dtype, dequantise
from autotune.kernels.spec import Inputs
from autotune.problem import Problem, exact, nearest

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


@dataclass(frozen=True)
class RopeProblem(Problem):
    """Tokens whose queries and keys are rotated, and whose keys and values go into the cache."""

    kernel: ClassVar[str] = "rope_kv_write"

    dtype: str = exact("bf16", "dtype of queries, keys, values and angles", FLOAT_DTYPES)
    kv_dtype: str = exact("same", "dtype of the cache", ("same", *CODES))
    kv_scale: str = exact(
        "none", "a quantised cache's scales: given per head, or found per token and head",
        ("none", "head", "token"),
    )  # fmt: skip
    style: str = exact(
        "half", "pairs that turn: (i, i + half), (2 i, 2 i + 1), or none: write only",
        ("half", "interleaved", "none"),
    )  # fmt: skip
    head_dim: int = exact(128, "dimensions of a head")
    unrotated: int = exact(0, "last dimensions of a head that do not turn")
    num_heads: int = nearest(32, "query heads")
    num_kv_heads: int = nearest(8, "KV heads")
    num_tokens: int = nearest(16, "tokens in the batch")

    def __post_init__(self) -> None:
        """Refuse combinations that mean nothing, so that a cell has one name only."""
        super().__post_init__()
        if self.unrotated and (not self.rotated or self.unrotated >= self.head_dim):
            raise UsageError(
                f"unrotated={self.unrotated} goes with a style that turns, and is below "
                f"head_dim={self.head_dim}"
            )
        if self.rotary_dim % 2:
            raise UsageError(f"head_dim - unrotated = {self.rotary_dim}: pairs need an even number")
        if (self.kv_dtype == "same") != (self.kv_scale == "none"):
            wanted = "none" if self.kv_dtype == "same" else "head or token"
            raise UsageError(f"kv_dtype={self.kv_dtype} goes with kv_scale={wanted}")

    @property
    def rotated(self) -> bool:
        """Whether anything turns."""
        return self.style != "none"

    @property
    def rotary_dim(self) -> int:
        """Leading dimensions that turn."""
        return self.head_dim - self.unrotated if self.rotated else 0

    @property
    def query_bytes(self) -> float:
        """Of all queries; 0 where they are left alone."""
        size = DTYPE_BYTES[self.dtype] * self.num_heads * self.head_dim
        return 1.0 * self.num_tokens * size if self.rotated else 0.0

    @property
    def kv_numbers(self) -> int:
        """Of all keys and values together."""
        return 2 * self.num_tokens * self.num_kv_heads * self.head_dim

    @property
    def kv_bytes(self) -> float:
        """Keys and values in, keys, values and found scales out."""
        size = DTYPE_BYTES[self.dtype]
        written = size if self.kv_dtype == "same" else DTYPE_BYTES[self.kv_dtype]
        scales = 8 * self.num_tokens * self.num_kv_heads if self.kv_scale == "token" else 0
        return 1.0 * self.kv_numbers * (size + written) + scales


def hard_problems() -> list[RopeProblem]:
    """No token, odd heads and dims, parts that do not turn, every style, codes and scale."""
    rows = (
        # codes, scale, style, head_dim, unrotated, heads, KV heads, tokens
        ("same", "none", "half", 64, 0, 4, 2, 0),
        ("same", "none", "half", 80, 0, 5, 1, 3),
        ("same", "none", "half", 96, 24, 3, 3, 4),
        ("same", "none", "half", 256, 0, 2, 1, 2),
        ("same", "none", "interleaved", 64, 32, 4, 2, 3),
        ("same", "none", "none", 72, 0, 1, 3, 5),
        ("int8", "head", "half", 128, 0, 3, 3, 3),
        ("int8", "token", "half", 96, 32, 2, 1, 4),
        ("fp8", "token", "half", 80, 0, 4, 2, 3),
        ("fp8", "head", "interleaved", 64, 0, 2, 2, 3),
        ("int8", "token", "none", 80, 0, 1, 3, 4),
    )
    return [RopeProblem(dtype, *row) for dtype in ("fp16", "fp32") for row in rows]


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
