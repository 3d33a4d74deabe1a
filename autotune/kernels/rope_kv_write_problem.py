"""What rotation with the cache write is asked to do, and small hard cases of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from autotune.errors import UsageError
from autotune.kernels.dtypes import DTYPE_BYTES, FLOAT_DTYPES
from autotune.kernels.quantisation import CODES
from autotune.problem import Problem, exact, nearest


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
    each = (("fp16", rows), ("bf16", rows[::2]), ("fp32", rows[1::2]))
    return [RopeProblem(dtype, *row) for dtype, chosen in each for row in chosen]
