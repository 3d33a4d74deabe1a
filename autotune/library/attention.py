"""Prefill by torch's scaled dot product attention: sequence by sequence, over gathered pages.

It knows no pages and no ragged batch, so each launch reads the lengths on the host and gathers
every context: a race must pay for both, as an engine does in every layer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from autotune.library.routine import Launch, Routine
from autotune.problem import Problem

if TYPE_CHECKING:
    import torch


def _sdpa(problem: Problem) -> Launch:
    from torch.nn.attention.bias import causal_lower_right
    from torch.nn.functional import scaled_dot_product_attention

    def launch(
        out: torch.Tensor,  # [num_tokens, num_heads, head_dim]
        q: torch.Tensor,  # [num_tokens, num_heads, head_dim]
        k_cache: torch.Tensor,  # [num_pages, block_size, num_kv_heads, head_dim]
        v_cache: torch.Tensor,  # the same shape and strides
        block_tables: torch.Tensor,  # int32 [num_seqs, max_pages]
        cu_query_lens: torch.Tensor,  # int32 [num_seqs + 1]
        context_lens: torch.Tensor,  # int32 [num_seqs]
        scale: float,
    ) -> None:
        starts, lengths = cu_query_lens.tolist(), context_lens.tolist()
        group = q.shape[1] // k_cache.shape[2]
        for number, length in enumerate(lengths):
            rows = slice(starts[number], starts[number + 1])
            count = rows.stop - rows.start
            if not count:
                continue
            if not length:  # a first launch over nothing
                out[rows].zero_()
                continue
            pages = block_tables[number, : math.ceil(length / k_cache.shape[1])]
            keys, values = (
                cache.index_select(0, pages).flatten(0, 1)[:length].transpose(0, 1).unsqueeze(0)
                for cache in (k_cache, v_cache)
            )  # [1, num_kv_heads, length, head_dim]
            queries = q[rows].transpose(0, 1).unsqueeze(0)  # [1, num_heads, count, head_dim]
            whole = count == length
            if not whole:  # torch's lower-right bias knows no groups of heads
                keys, values = (x.repeat_interleave(group, dim=1) for x in (keys, values))
            done = scaled_dot_product_attention(
                queries,
                keys,
                values,
                None if whole else causal_lower_right(count, length),
                is_causal=whole,
                scale=scale,
                enable_gqa=whole,
            )
            out[rows] = done.squeeze(0).transpose(0, 1)

    return launch


def _why_not(problem: Problem) -> str | None:
    axes = problem.exact_axes()
    # Values of the axes at which attention is the plain kind, in the type of the queries.
    plain = {"window": 0, "softcap": 0.0, "kv_dtype": "auto", "alibi": False, "sinks": False}
    odd = [f"{name}={axes[name]}" for name, value in plain.items() if axes[name] != value]
    return f"torch's attention has no {', '.join(odd)}" if odd else None


SDPA = Routine(_why_not, _sdpa)
