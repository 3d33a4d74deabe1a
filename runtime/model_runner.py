"""Runs a scheduled step: moves blocks, forward pass, sampling. It keeps nothing between steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from runtime.batch import ScheduledBatch
from runtime.gather_logprobs import gather_logprobs
from runtime.kv_cache import KVCache
from runtime.logprobs import PositionLogprobs
from runtime.model_input import ModelInput, build_model_input
from runtime.sampler import Sampled
from runtime.sequence import Sequence


class Model(Protocol):
    """What the runner asks of a model."""

    def forward(self, step: ModelInput, cache: KVCache) -> torch.Tensor:
        """Compute the last hidden states [num_tokens, hidden_size], and write keys and values."""
        ...

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores of the next token, float32 [num_rows, vocab_size]."""
        ...


class Chooser(Protocol):
    """What the runner asks of a sampler."""

    def sample(
        self, logits: torch.Tensor, samples: list[Sequence], output_indices: list[int]
    ) -> Sampled:
        """Choose one token per row of logits [num_samples, vocab_size], which may be changed."""
        ...


@dataclass(frozen=True, slots=True)
class PromptLogprobs:
    """Log-probabilities of consecutive prompt tokens, the first of them at `position`."""

    sequence: Sequence
    position: int
    logprobs: list[PositionLogprobs]


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What a step gave."""

    sampled: Sampled
    prompt_logprobs: list[PromptLogprobs]


class ModelRunner:
    """Binds a model to its KV cache and its sampler."""

    def __init__(
        self,
        model: Model,
        cache: KVCache,
        sampler: Chooser,
        device: torch.device,
        *,
        with_tables: bool,
    ) -> None:
        """Bind them; `with_tables` where the model's operations need `ModelInput.tables`."""
        self.model = model
        self.cache = cache
        self.sampler = sampler
        self._device = device
        self._with_tables = with_tables

    def run(self, batch: ScheduledBatch) -> StepOutput:
        """Perform one step; every input token is known to the host."""
        with torch.inference_mode():
            return self._run(batch)

    def _run(self, batch: ScheduledBatch) -> StepOutput:
        self.cache.swap_out(batch.swap_outs)
        self.cache.swap_in(batch.swap_ins)
        self.cache.copy(batch.copies)
        if not batch.sequences:
            return StepOutput(Sampled([], [], []), [])
        step = build_model_input(
            batch, self.cache.block_size, self._device, with_tables=self._with_tables
        )
        hidden = self.model.forward(step, self.cache)
        prompt_logprobs = self._prompt_logprobs(batch, hidden)
        if not batch.samples:
            return StepOutput(Sampled([], [], []), prompt_logprobs)
        logits = self.model.logits(hidden[step.sample_rows])
        sampled = self.sampler.sample(logits, batch.samples, batch.output_indices())
        return StepOutput(sampled, prompt_logprobs)

    def _prompt_logprobs(self, batch: ScheduledBatch, hidden: torch.Tensor) -> list[PromptLogprobs]:
        """Score the prompt tokens that follow this step's tokens, where they are asked for."""
        found = []
        row = 0
        for sequence, start, count in zip(batch.sequences, batch.starts, batch.counts, strict=True):
            wanted = sequence.request.sampling_params.prompt_logprobs
            end = min(start + count, sequence.num_prompt_tokens - 1)
            if wanted is not None and end > start:
                logits = self.model.logits(hidden[row : row + end - start])
                targets = sequence.token_ids[start + 1 : end + 1]
                rows = torch.log_softmax(logits, dim=-1)
                scores = gather_logprobs(rows, targets, [wanted] * len(targets))
                found.append(PromptLogprobs(sequence, start + 1, scores))
            row += count
        return found
