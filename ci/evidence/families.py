"""What winners are chosen for, in order of value: what comes first is done if time is short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evidence.points import ATTENTION, ROWS

Sizes = dict[str, int]


@dataclass(frozen=True, slots=True)
class Family:
    """A cell, its sizes, and whom its winners are compared with."""

    name: str
    kernel: str
    axes: str
    sizes: Sequence[Sizes]
    peers: Sequence[str] = ()
    """Timed at every size."""


def _decode(pairs: Sequence[tuple[int, int]]) -> tuple[Sizes, ...]:
    return tuple({"num_seqs": batch, "context_len": length} for batch, length in pairs)


DECODE = _decode([(batch, k) for k in (512, 2048, 8192, 32768) for batch in (1, 8, 32, 128)])
FEW_DECODE = _decode(
    [(1, 2048), (1, 32768), (8, 8192), (32, 2048), (32, 8192), (128, 512), (128, 2048)]
)
PREFILL = tuple(
    {"num_seqs": 1, "query_len": new, "context_len": context}
    for new, context in ((512, 512), (2048, 2048), (8192, 8192), (512, 33280))
)
_DECODE_PEERS = ("sdpa", "sdpa_gather")
_PREFILL_PEERS = ("sdpa", "sdpa_flash", "sdpa_cudnn")

BLOCK_SIZES = (16, 32, 64, 128, 256)


def _attention(
    phase: str, group: int, size: int, sizes: Sequence[Sizes], peers: Sequence[str] = ()
) -> Family:
    return Family(
        f"{phase}, {group} query heads per KV head, blocks of {size}",
        f"paged_attention_{phase}",
        f"{ATTENTION},group={group},block_size={size}",
        sizes,
        peers,
    )


FAMILIES: Sequence[Family] = (
    _attention("decode", 4, 16, DECODE, _DECODE_PEERS),
    Family("W4 product", "dequant_gemm", "bits=4,group_size=128,zero_point=True,n=28672,k=4096",
           ROWS, ("cublas", "int4pack")),
    Family("gate-up", "fused_mlp", "part=gate_up,n=14336,k=4096", ROWS, ("cublas", "compiled")),
    _attention("prefill", 4, 16, PREFILL, _PREFILL_PEERS),
    *(_attention("decode", 4, size, FEW_DECODE) for size in BLOCK_SIZES[1:]),
    Family("down", "fused_mlp", "part=down,activation=none,n=4096,k=14336", ROWS, ("cublas",)),
    Family("W8 product", "dequant_gemm", "bits=8,group_size=128,zero_point=False,n=28672,k=4096",
           ROWS, ("cublas",)),
    _attention("decode", 8, 16, FEW_DECODE, _DECODE_PEERS),
    *(_attention("prefill", 4, size, PREFILL) for size in BLOCK_SIZES[1:]),
    _attention("prefill", 8, 16, PREFILL, _PREFILL_PEERS),
    *(_attention("decode", 8, size, FEW_DECODE) for size in BLOCK_SIZES[1:]),
)  # fmt: skip

COMPILED: Sequence[tuple[int, int, str]] = ((0, 4, "flex"), (0, 10, "flex"), (3, 1, "flex"))
"""Family, size, peer: what takes a compiler ten seconds or more each time, done last."""
