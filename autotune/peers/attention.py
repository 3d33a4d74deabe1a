"""torch's scaled dot product attention, as it stands and per backend.

It knows no pages. Unless a peer's name says `gather`, keys and values are gathered before the clock
starts: a bound that no paged kernel gets for nothing.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from autotune.kernels.spec import Inputs
from autotune.peers.refusal import PeerError
from autotune.problem import Problem

if TYPE_CHECKING:
    import torch

Launch = Callable[[], Any]


def decode_sdpa(problem: Problem, inputs: Inputs) -> Launch:
    """Whichever backend torch picks."""
    return _decode(inputs, None)


def decode_sdpa_flash(problem: Problem, inputs: Inputs) -> Launch:
    """FlashAttention-2 inside torch."""
    return _decode(inputs, "FLASH_ATTENTION")


def decode_sdpa_cudnn(problem: Problem, inputs: Inputs) -> Launch:
    """CuDNN's attention."""
    return _decode(inputs, "CUDNN_ATTENTION")


def decode_sdpa_gather(problem: Problem, inputs: Inputs) -> Launch:
    """The gathering of pages timed, too: what an engine without a paged kernel pays."""
    return _decode(inputs, None, gather_ahead=False)


def prefill_sdpa(problem: Problem, inputs: Inputs) -> Launch:
    """Whichever backend torch picks."""
    return _prefill(inputs, None)


def prefill_sdpa_flash(problem: Problem, inputs: Inputs) -> Launch:
    """FlashAttention-2 inside torch."""
    return _prefill(inputs, "FLASH_ATTENTION")


def prefill_sdpa_cudnn(problem: Problem, inputs: Inputs) -> Launch:
    """CuDNN's attention."""
    return _prefill(inputs, "CUDNN_ATTENTION")


def gathered(inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of full sequences: views [num_seqs, num_kv_heads, context_len, head_dim].

    Raises:
        PeerError: the contexts differ in length, or attention is of a kind that torch has not.
    """
    variants = sorted(inputs.keys() & {"k_scale", "alibi_slopes", "sinks"})
    if variants:
        raise PeerError(f"none with {', '.join(variants)}")
    lens = inputs["context_lens"]
    length = int(lens.max())
    if int(lens.min()) != length or length == 0:
        raise PeerError("contexts of different lengths, or none")
    block_size = inputs["k_cache"].shape[1]
    pages = inputs["block_tables"][:, : math.ceil(length / block_size)].long()
    k, v = (
        inputs[name][pages].flatten(1, 2)[:, :length].transpose(1, 2)
        for name in ("k_cache", "v_cache")
    )
    return k, v


def refuse_variants(problem: Problem) -> None:
    """Leave windows and caps to others.

    Raises:
        PeerError: the problem has one.
    """
    axes = problem.exact_axes()
    if axes["window"] or axes["softcap"]:
        raise PeerError("no window and no soft cap")


def queries(inputs: Inputs) -> torch.Tensor:
    """Queries of sequences of one length: a view [num_seqs, num_heads, query_len, head_dim].

    Raises:
        PeerError: the lengths differ.
    """
    starts = inputs["cu_query_lens"].tolist()
    count = len(starts) - 1
    length = starts[1] - starts[0]
    if starts != list(range(0, length * count + 1, max(1, length))):
        raise PeerError("queries of different lengths, or none")
    q: torch.Tensor = inputs["q"][: starts[-1]]
    return q.unflatten(0, (count, length)).transpose(1, 2)


def _decode(inputs: Inputs, backend: str | None, gather_ahead: bool = True) -> Launch:
    from torch.nn.functional import scaled_dot_product_attention

    q = inputs["q"].unsqueeze(2)  # [num_seqs, num_heads, 1, head_dim]
    k, v = gathered(inputs)

    def launch() -> torch.Tensor:
        keys, values = (k, v) if gather_ahead else gathered_at(inputs, k.shape[2])
        with _only(backend):
            out = scaled_dot_product_attention(
                q, keys, values, scale=inputs["scale"], enable_gqa=True
            )
        return out.squeeze(2)

    return launch


def gathered_at(inputs: Inputs, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`gathered` for a known length: asks nothing of the device, so it can be captured."""
    block_size = inputs["k_cache"].shape[1]
    pages = inputs["block_tables"][:, : math.ceil(length / block_size)].long()
    k, v = (
        inputs[name][pages].flatten(1, 2)[:, :length].transpose(1, 2)
        for name in ("k_cache", "v_cache")
    )
    return k, v


def _prefill(inputs: Inputs, backend: str | None) -> Launch:
    from torch.nn.attention.bias import causal_lower_right
    from torch.nn.functional import scaled_dot_product_attention

    q = queries(inputs)
    k, v = gathered(inputs)
    group = q.shape[1] // k.shape[1]
    square = q.shape[2] == k.shape[2]
    if not square:  # torch's lower-right bias knows no groups of heads
        k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
    bias = None if square else causal_lower_right(q.shape[2], k.shape[2])

    def launch() -> torch.Tensor:
        with _only(backend):
            out = scaled_dot_product_attention(
                q, k, v, bias, is_causal=square, scale=inputs["scale"], enable_gqa=square
            )
        return out.transpose(1, 2).flatten(0, 1)

    return launch


def _only(backend: str | None) -> contextlib.AbstractContextManager[Any]:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return contextlib.nullcontext() if backend is None else sdpa_kernel(SDPBackend[backend])
