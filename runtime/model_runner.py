"""Runs scheduled steps: moves blocks, forward pass, sampling.

A step has three parts. The host prepares: it turns the batch into integers, and reads no more of
it afterwards. The device works: all that is submitted as one piece, in which nothing is read back.
The host collects: it waits for the step, and turns what came back into outputs. Between the last
two, further steps may be launched; the tokens they need are on the device by then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from runtime.batch import ScheduledBatch
from runtime.gather_logprobs import GatheredLogprobs, gather_logprobs
from runtime.graphs import DecodeGraphs, GraphDevice
from runtime.kv_cache import KVCache
from runtime.logprobs import PositionLogprobs
from runtime.model_input import ModelInput
from runtime.sampler import PendingSamples, Sampled, SamplingPlan
from runtime.sequence import Sequence
from runtime.step_inputs import PreparedInputs, StepInputs
from runtime.stream import Mark, Stream


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

    def plan(self, samples: list[Sequence], output_indices: list[int]) -> SamplingPlan:
        """Read what the samples ask for, on the host."""
        ...

    def launch(
        self, logits: torch.Tensor, plan: SamplingPlan, inputs: torch.Tensor, stream: Stream
    ) -> PendingSamples:
        """Choose one token per row of logits [num_samples, vocab_size], which may be changed.

        `inputs`, int64 [num_samples], are the tokens before those to choose.
        """
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


@dataclass(frozen=True, slots=True, eq=False)
class _PromptPlan:
    """Rows of a step whose next tokens are in the prompt and are to be scored."""

    sequence: Sequence
    first_row: int
    position: int
    targets: NDArray[np.int64]
    num_top: int


class StepInFlight:
    """A step that was launched, and what of it has come back."""

    def __init__(self) -> None:
        self.mark: Mark | None = None
        self.samples: PendingSamples | None = None
        self.prompts: list[tuple[_PromptPlan, GatheredLogprobs]] = []

    def collect(self) -> StepOutput:
        """Wait for the step and return what it gave."""
        assert self.mark is not None, "the step was not launched"
        self.mark.wait()
        sampled = Sampled([], [], []) if self.samples is None else self.samples.read()
        prompts = [
            PromptLogprobs(
                plan.sequence, plan.position, scores.read([plan.num_top] * len(plan.targets))
            )
            for plan, scores in self.prompts
        ]
        return StepOutput(sampled, prompts)


class ModelRunner:
    """Binds a model to its KV cache, its inputs and its sampler."""

    def __init__(
        self,
        model: Model,
        cache: KVCache,
        sampler: Chooser,
        inputs: StepInputs,
        *,
        graph_device: GraphDevice | None = None,
        capture_sizes: tuple[int, ...] = (),
    ) -> None:
        """Capture the graphs, where there are a device and sizes for them."""
        self.model = model
        self.cache = cache
        self.sampler = sampler
        self._inputs = inputs
        self._stream = inputs.stream
        self._graphs: DecodeGraphs | None = None
        if graph_device is not None and capture_sizes:
            with torch.inference_mode():
                self._graphs = DecodeGraphs(graph_device, capture_sizes, self._forward_decodes)

    def run(self, batch: ScheduledBatch) -> StepOutput:
        """Perform one step and wait for it."""
        return self.launch(batch).collect()

    def launch(self, batch: ScheduledBatch) -> StepInFlight:
        """Start one step; input tokens may be those that the step before is about to sample."""
        step = StepInFlight()
        if not batch.sequences:
            self._stream.submit(lambda: self._move(batch))
            step.mark = self._stream.mark()
            return step
        size = None if self._graphs is None else self._graphs.size_for(batch)
        prepared = self._inputs.prepare(batch, size)
        plan = None
        if batch.samples:
            plan = self.sampler.plan(batch.samples, batch.output_indices())
        prompts = _plan_prompts(batch)

        def work() -> None:
            with torch.inference_mode():
                self._move(batch)
                self._compute(step, prepared, size, plan, prompts)

        self._stream.submit(work)
        step.mark = self._stream.mark()
        self._inputs.staging.guard(step.mark)
        return step

    def _move(self, batch: ScheduledBatch) -> None:
        with torch.inference_mode():
            self.cache.swap_out(batch.swap_outs)
            self.cache.swap_in(batch.swap_ins)
            self.cache.copy(batch.copies)

    def _compute(
        self,
        step: StepInFlight,
        prepared: PreparedInputs,
        graph_size: int | None,
        plan: SamplingPlan | None,
        prompts: list[_PromptPlan],
    ) -> None:
        """Work on the device alone."""
        model_input = self._inputs.upload(prepared)
        if graph_size is None or self._graphs is None:
            hidden = self.model.forward(model_input, self.cache)
        else:
            hidden = self._graphs.replay(graph_size)
        for prompt in prompts:
            step.prompts.append((prompt, self._score(prompt, hidden)))
        if plan is None:
            return
        rows = model_input.sample_rows
        logits = self.model.logits(hidden.index_select(0, rows))
        inputs = model_input.token_ids.index_select(0, rows)
        samples = self.sampler.launch(logits, plan, inputs, self._stream)
        self._inputs.remember(prepared, samples.token_ids)
        step.samples = samples.download(self._stream)

    def _score(self, prompt: _PromptPlan, hidden: torch.Tensor) -> GatheredLogprobs:
        rows = hidden[prompt.first_row : prompt.first_row + len(prompt.targets)]
        logprobs = torch.log_softmax(self.model.logits(rows), dim=-1)
        targets = self._stream.send(prompt.targets)
        return gather_logprobs(logprobs, targets, prompt.num_top).download(self._stream)

    def _forward_decodes(self, num_seqs: int) -> torch.Tensor:
        return self.model.forward(self._inputs.static_decodes(num_seqs), self.cache)


def _plan_prompts(batch: ScheduledBatch) -> list[_PromptPlan]:
    """Find the prompt tokens that follow this step's tokens, where they are to be scored."""
    found = []
    row = batch.num_decodes
    for index in range(batch.num_decodes, len(batch.sequences)):
        sequence, start, count = batch.sequences[index], batch.starts[index], batch.counts[index]
        wanted = sequence.request.sampling_params.prompt_logprobs
        end = min(start + count, sequence.num_prompt_tokens - 1)
        if wanted is not None and end > start:
            targets = np.array(sequence.token_ids[start + 1 : end + 1], dtype=np.int64)
            found.append(_PromptPlan(sequence, row, start + 1, targets, wanted))
        row += count
    return found
