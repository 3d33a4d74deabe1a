"""Which part of each space is recorded where the whole of it does not fit into eight minutes.

The rules, without a look at any prediction or time: names (lookups, kinds, layouts) and switches
keep all their values; of a long ladder every other step stays, both ends where they are legal
together with the rest; a knob that can only matter elsewhere (order of blocks, eviction, which
change no instruction of a loop) stays at one value. The default of every point is always added.
What is left is recorded in full, in random order, so that what is there when time ends is a fair
sample.
"""

from __future__ import annotations

from collections.abc import Mapping

from autotune.record import Grid

GRIDS: Mapping[str, Grid] = {
    "paged_attention_decode": {
        "num_warps": (2, 4, 8),
        "num_stages": (1, 3, 5),
        "num_splits": (1, 4, 16, 64),
    },
    "paged_attention_prefill": {"order": ("blocks",)},
    "fused_mlp": {"block_m": (16, 64, 128), "num_stages": (2, 4), "group_m": (8,)},
    "dequant_gemm": {
        "block_m": (1, 16, 64, 128),
        "block_n": (16, 64, 256),
        "block_k": (32, 128),
        "num_warps": (1, 4, 8),
        "num_stages": (1, 3, 5),
        "split_k": (1, 4, 16),
        "weight_eviction": ("",),
    },
}
