"""Changes to one row of logits that a request asks for, before any token is chosen.

The order is that of vLLM: bias, tokens that may not come yet, then the penalties, which look at the
tokens so far: at prompt and output (repetition; Keskar et al., 2019), or at the output alone
(presence, frequency; as in OpenAI's API).
"""

from __future__ import annotations

import torch

from runtime.sampling_params import SamplingParams
from runtime.sequence import Sequence


def changes_logits(params: SamplingParams) -> bool:
    """Whether `apply_rules` would do anything."""
    return bool(
        params.logit_bias
        or params.min_tokens
        or params.repetition_penalty != 1
        or params.presence_penalty
        or params.frequency_penalty
    )


def apply_rules(logits: torch.Tensor, sequence: Sequence, output_index: int) -> None:
    """Change a sequence's logits [vocab_size] in place, for its output token `output_index`."""
    params = sequence.request.sampling_params
    if params.logit_bias:
        ids = torch.tensor(list(params.logit_bias), device=logits.device)
        logits[ids] += torch.tensor(list(params.logit_bias.values()), device=logits.device)
    if output_index < params.min_tokens and sequence.stop_ids:
        logits[torch.tensor(sorted(sequence.stop_ids), device=logits.device)] = -torch.inf
    known = sequence.token_ids[: sequence.num_prompt_tokens + output_index]
    if params.repetition_penalty != 1:
        seen = torch.tensor(known, device=logits.device).unique()
        scores = logits[seen]
        penalty = params.repetition_penalty
        logits[seen] = torch.where(scores > 0, scores / penalty, scores * penalty)
    output = known[sequence.num_prompt_tokens :]
    if output and (params.presence_penalty or params.frequency_penalty):
        written, counts = torch.tensor(output, device=logits.device).unique(return_counts=True)
        logits[written] -= params.presence_penalty + params.frequency_penalty * counts
