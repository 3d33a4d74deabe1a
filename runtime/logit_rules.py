"""Changes to the logits that requests ask for, before any token is chosen.

The order is that of vLLM: bias, tokens that may not come yet, then the penalties, which look at the
tokens so far: at prompt and output (repetition; Keskar et al., 2019), or at the output alone
(presence, frequency; as in OpenAI's API).
"""

from __future__ import annotations

from collections.abc import Sequence as Samples
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from runtime.sampling_params import SamplingParams
from runtime.sequence import Sequence
from runtime.stream import Stream
from runtime.token_counts import CountPlan, TokenCounts


@dataclass(frozen=True, slots=True, eq=False)
class RulePlan:
    """The rules of one step as arrays; (row, token) pairs name single logits."""

    bias_rows: NDArray[np.int64]
    bias_tokens: NDArray[np.int64]
    biases: NDArray[np.float32]
    banned_rows: NDArray[np.int64]
    banned_tokens: NDArray[np.int64]
    penalty_rows: NDArray[np.int64]
    penalties: NDArray[np.float32]  # [3, num_penalty_rows]: repetition, presence, frequency
    counts: CountPlan | None


def changes_logits(params: SamplingParams) -> bool:
    """Whether any rule applies."""
    return bool(params.logit_bias or params.min_tokens or _has_penalty(params))


def _has_penalty(params: SamplingParams) -> bool:
    return bool(
        params.repetition_penalty != 1 or params.presence_penalty or params.frequency_penalty
    )


def plan_rules(
    rows: Samples[int],
    samples: Samples[Sequence],
    output_indices: Samples[int],
    counts: TokenCounts,
) -> RulePlan:
    """Gather the rules of some rows of the logits.

    Args:
        rows: of the logits.
        samples: their sequences.
        output_indices: which of its output tokens each gives.
        counts: of tokens, for the penalties.
    """
    bias: list[tuple[int, int, float]] = []
    banned: list[tuple[int, int]] = []
    punished: list[int] = []
    for place, (row, sequence) in enumerate(zip(rows, samples, strict=True)):
        params = sequence.request.sampling_params
        bias.extend((row, token, value) for token, value in (params.logit_bias or {}).items())
        if output_indices[place] < params.min_tokens:
            banned.extend((row, token) for token in sorted(sequence.stop_ids))
        if _has_penalty(params):
            punished.append(place)
    params_of = [samples[place].request.sampling_params for place in punished]
    penalties = [
        [params.repetition_penalty for params in params_of],
        [params.presence_penalty for params in params_of],
        [params.frequency_penalty for params in params_of],
    ]
    plan = None
    if punished:
        plan = counts.plan(
            [samples[place] for place in punished], [output_indices[place] for place in punished]
        )
    return RulePlan(
        bias_rows=np.array([row for row, _, _ in bias], dtype=np.int64),
        bias_tokens=np.array([token for _, token, _ in bias], dtype=np.int64),
        biases=np.array([value for _, _, value in bias], dtype=np.float32),
        banned_rows=np.array([row for row, _ in banned], dtype=np.int64),
        banned_tokens=np.array([token for _, token in banned], dtype=np.int64),
        penalty_rows=np.array([rows[place] for place in punished], dtype=np.int64),
        penalties=np.array(penalties, dtype=np.float32),
        counts=plan,
    )


def apply_rules(
    logits: torch.Tensor,
    plan: RulePlan,
    inputs: torch.Tensor,
    counts: TokenCounts,
    stream: Stream,
) -> None:
    """Change the logits in place.

    Args:
        logits: float32 [num_samples, vocab_size].
        plan: of the step.
        inputs: the token before the one to choose, int64 [num_samples].
        counts: the same as for the plan.
        stream: of the logits' device.
    """
    vocab_size = logits.shape[1]
    flat = logits.view(-1)
    if len(plan.biases):
        places = stream.send(plan.bias_rows * vocab_size + plan.bias_tokens)
        flat.index_add_(0, places, stream.send(plan.biases))
    if len(plan.banned_rows):
        places = stream.send(plan.banned_rows * vocab_size + plan.banned_tokens)
        flat.index_fill_(0, places, -torch.inf)
    if plan.counts is None:
        return
    rows = stream.send(plan.penalty_rows)
    seen, output = counts.count(plan.counts, inputs.index_select(0, rows), vocab_size, stream)
    repetition, presence, frequency = stream.send(plan.penalties)[:, :, None]
    scores = logits.index_select(0, rows)
    punished = torch.where(scores > 0, scores / repetition, scores * repetition)
    scores = torch.where(seen, punished, scores)
    scores = scores - torch.where(output > 0, presence + frequency * output, 0.0)
    logits.index_copy_(0, rows, scores)
