"""Which KV block size suits a model on a GPU: the one whose decode attention was tuned fastest."""

from __future__ import annotations

import math

from autotune.registry import BlockSizeTimes, Provenance, TunedKernels
from runtime.attention_axes import attention_axes
from runtime.kernel_set import DECODE
from runtime.ops.base import BlockSizeChoice
from runtime.ops.request import Demands

_UNTUNED = 16
_TIE = 1.01
"""Times within 1 % are equal: the smaller block wastes less memory at the end of a sequence, and
more of a prefix can be shared."""


def choose_block_size(
    tuned: TunedKernels, demands: Demands, dtype: str, kv_dtype: str, max_model_len: int
) -> BlockSizeChoice:
    """Take the block size with the least time of decode attention over all layers.

    The time of a block size is the geometric mean over batches and contexts, and over layers where
    these have several kinds of attention.
    """
    kinds: list[tuple[BlockSizeTimes, int]] = []
    for spec, num_layers in demands.attention.items():
        axes = attention_axes(dtype, kv_dtype, spec, _UNTUNED, max_model_len)
        times = tuned.block_sizes(DECODE, axes)
        if times is not None:
            kinds.append((times, num_layers))
    common = set.intersection(*(set(times.mean_us) for times, _ in kinds)) if kinds else set()
    if not common:
        kinds_asked = "; ".join(spec.words for spec in demands.attention)
        types = dtype if kv_dtype == "auto" else f"{dtype} over {kv_dtype}"
        return BlockSizeChoice(
            _UNTUNED,
            f"the usual one, for nothing is tuned for {types}, {kinds_asked} on {tuned.arch.name}",
        )
    weight = sum(num_layers for _, num_layers in kinds)
    mean_us = {
        size: math.exp(sum(n * math.log(times.mean_us[size]) for times, n in kinds) / weight)
        for size in sorted(common)
    }
    least = min(mean_us.values())
    size = next(size for size, time_us in mean_us.items() if time_us <= _TIE * least)
    # One prediction among the times makes the mean one.
    provenance = max((times.provenance for times, _ in kinds), key=list(Provenance).index)
    listed = ", ".join(f"{each}: {time_us:.1f}" for each, time_us in mean_us.items())
    tie = " (within 1 % the smallest wastes least)" if mean_us[size] > least else ""
    return BlockSizeChoice(
        size,
        f"least time of decode attention{tie}; {provenance}, geometric mean in us by block size: "
        f"{listed}",
    )
