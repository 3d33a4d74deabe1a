"""Winners of kernels that have no adapter of their own: plain tiled GEMMs, as far as one can tell.

Mapping: a file whose rows give m (or tokens), n, k and block_m, block_n, block_k, num_warps,
num_stages is taken for out [m, n] = x [m, k] times w [k, n], with group_m and split_k where there
are such columns. Operands are 8 bits wide where a dtype column, or the kernel's name, says so. The
legal space is every combination of the values that the file shows for each knob, powers of two
between them included.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from autotune.arch import GpuArch
from autotune.winners.case import Case, grid, make_case, powers
from autotune.winners.moe import Gemm, gemm_candidates

REQUIRED = ("n", "k", "block_m", "block_n", "block_k", "num_warps", "num_stages")
_TILE = ("block_m", "block_n", "block_k")
_OPTIONAL = ("group_m", "split_k")


def cases(gpu: GpuArch, kernel: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[Case | None]:
    """One case per problem of a file; None where no record of a problem is legal."""
    optional = [name for name in _OPTIONAL if all(name in row for row in rows)]
    names = (*_TILE, *optional, "num_warps", "num_stages")
    values = {name: sorted({int(row[name]) for row in rows}) for name in names}
    space = {
        name: sorted({*seen, *powers(seen[0], seen[-1])}) if name in _TILE else seen
        for name, seen in values.items()
    }
    knobs = grid(space)
    problems: dict[tuple[int, int, int, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        dtype = _dtype(kernel, row)
        m = row["m"] if "m" in row else row["tokens"]
        problems[m, row["n"], row["k"], dtype].append(row)
    for (m, n, k, dtype), records in problems.items():
        candidates = gemm_candidates(gpu, Gemm(1, m, n, k, dtype), knobs)
        problem = {"m": m, "n": n, "k": k, "dtype": dtype}
        yield make_case(kernel, gpu, "gemm", problem, candidates, records)


def _dtype(kernel: str, row: Mapping[str, Any]) -> str:
    text = f"{row.get('dtype', '')} {row.get('activation_dtype', '')} {kernel}".lower()
    return next((name for name in ("fp8", "int8") if name in text), "fp16")
