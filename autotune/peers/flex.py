"""torch's FlexAttention, compiled; needs a GPU, where Inductor writes its Triton kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from autotune.kernels.spec import Inputs
from autotune.peers.attention import gathered, queries, refuse_variants
from autotune.problem import Problem

if TYPE_CHECKING:
    import torch


def decode(problem: Problem, inputs: Inputs) -> Callable[[], Any]:
    """One query per sequence over gathered keys; no mask, for all contexts are full."""
    refuse_variants(problem)
    k, v = (tensor.contiguous() for tensor in gathered(inputs))
    attend = _compiled()
    q = inputs["q"].unsqueeze(2)

    def launch() -> torch.Tensor:
        return attend(q, k, v, scale=inputs["scale"], enable_gqa=True).squeeze(2)

    return launch


def prefill(problem: Problem, inputs: Inputs) -> Callable[[], Any]:
    """Causal over gathered keys, the mask made ahead."""
    from torch.nn.attention.flex_attention import create_block_mask

    refuse_variants(problem)
    q = queries(inputs)
    k, v = (tensor.contiguous() for tensor in gathered(inputs))
    ahead = k.shape[2] - q.shape[2]

    def causal(batch: Any, head: Any, row: Any, column: Any) -> Any:
        return column <= row + ahead

    mask = create_block_mask(causal, None, None, q.shape[2], k.shape[2], device=q.device.type)
    attend = _compiled()

    def launch() -> torch.Tensor:
        out = attend(q, k, v, block_mask=mask, scale=inputs["scale"], enable_gqa=True)
        return out.transpose(1, 2).flatten(0, 1)

    return launch


def _compiled() -> Callable[..., torch.Tensor]:
    import torch
    from torch.nn.attention.flex_attention import flex_attention

    compiled: Callable[..., torch.Tensor] = torch.compile(flex_attention, dynamic=False)
    return compiled
