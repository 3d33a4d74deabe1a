"""Draws one token per row of logits: temperature, min-p, top-k, top-p, then one random number each.

A token is found by inverting the cumulative distribution at the row's number, so one number in
[0, 1) decides, and rows do not know of each other. min-p is of Nguyen et al. (2024), top-p of
Holtzman et al. (2020), top-k of Fan et al. (2018).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from runtime.sampling_params import SamplingParams


def draw_tokens(
    logits: torch.Tensor, params: Sequence[SamplingParams], uniforms: Sequence[float]
) -> list[int]:
    """Draw from softmax(logits / temperature), cut as each row's parameters say.

    Args:
        logits: float32 [num_rows, vocab_size].
        params: one per row, none of them greedy.
        uniforms: one number in [0, 1) per row.
    """
    temperatures = torch.tensor([p.temperature for p in params], dtype=torch.float32)
    scaled = logits / temperatures.to(logits.device)[:, None]
    numbers = torch.tensor(uniforms, dtype=torch.float64, device=logits.device)
    # Cut rows are drawn in order of likelihood, the others in that of the vocabulary: which, must
    # depend on the row alone.
    cut = [index for index, p in enumerate(params) if _is_cut(p)]
    tokens = [0] * len(params)
    whole = [index for index in range(len(params)) if index not in set(cut)]
    if whole:
        drawn = _invert(torch.softmax(scaled[whole], dim=-1), numbers[whole])
        for index, token in zip(whole, drawn.tolist(), strict=True):
            tokens[index] = token
    if cut:
        ordered, ids = scaled[cut].sort(dim=-1, descending=True, stable=True)
        _cut(ordered, [params[index] for index in cut])
        places = _invert(torch.softmax(ordered, dim=-1), numbers[cut])
        drawn = ids.gather(1, places[:, None])[:, 0]
        for index, token in zip(cut, drawn.tolist(), strict=True):
            tokens[index] = token
    return tokens


def _is_cut(params: SamplingParams) -> bool:
    return params.top_k > 0 or params.top_p < 1 or params.min_p > 0


def _cut(ordered: torch.Tensor, params: Sequence[SamplingParams]) -> None:
    """Exclude the unlikely tokens of rows in falling order, in place; the first always stays."""
    device = ordered.device
    vocab_size = ordered.shape[1]
    min_p = torch.tensor([p.min_p for p in params], device=device)[:, None]
    ordered.masked_fill_((ordered - ordered[:, :1]).exp() < min_p, -torch.inf)
    top_k = torch.tensor([p.top_k if p.top_k > 0 else vocab_size for p in params], device=device)
    ordered.masked_fill_(torch.arange(vocab_size, device=device) >= top_k[:, None], -torch.inf)
    top_p = torch.tensor([p.top_p for p in params], device=device)[:, None]
    shares = torch.softmax(ordered, dim=-1)
    before = shares.cumsum(dim=-1) - shares
    outside = (before >= top_p) & (top_p < 1)
    outside[:, 0] = False
    ordered.masked_fill_(outside, -torch.inf)


def _invert(shares: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """First place of each row where the cumulative share passes the row's number."""
    cumulative = shares.double().cumsum(dim=-1)
    total = cumulative[:, -1:]
    place = torch.searchsorted(cumulative, numbers[:, None] * total, right=True)
    # Rounding may reach the total: then it is the last place that has any share.
    last = torch.searchsorted(cumulative, total.contiguous())
    return torch.minimum(place, last)[:, 0]
