"""The second and third tier: rounding, judged by what the same rounding costs Hugging Face.

Rounded are all numbers, in half precision, or those of a quantised KV cache, or both. The noise is
measured: how far Hugging Face's rounded log-probabilities are from its own in fp32 with a plain
cache, along the same tokens. The engine may be as far, with a margin for the maximum of a sample,
and may prefer another token only where Hugging Face's two are closer than that.

In fp32 with a quantised cache both sides have most codes in common: only a number on the verge of
two may get either, and then others after it. There the engine is held to Hugging Face's rounded
side, and to a tenth of the noise, or to how far that side is from itself with its sums in another
order if that is more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from runtime.check.engine_bench import EngineBench, run_all
from runtime.check.exact import describe, first_difference, run_scenario
from runtime.check.outcome import Mismatch, Outcome, Tier
from runtime.check.reference import ReferenceRun
from runtime.check.scenarios import Scenario
from runtime.engine import LLMEngine
from runtime.sampler import PendingSamples, SamplingPlan
from runtime.sampling_params import SamplingParams
from runtime.sequence import Sequence as EngineSequence
from runtime.stream import Stream

_MEAN_MARGIN = 1.5
"""The engine's mean error over Hugging Face's: a mistake moves all positions."""
_MAX_MARGIN = 4.0
"""The engine's error at any one position over Hugging Face's largest."""
_SHARED_CODES = 0.1
"""Noise between two sides that share their codes, over what the codes cost. Errors add up as
squares: one code in a thousand that is another makes a thirtieth."""
_FLOOR = 1e-5
"""Error that is never held against the engine."""


class ForcedSampler:
    """Gives out the tokens of reference runs, and keeps the engine's log-probabilities."""

    def __init__(self, runs: Sequence[ReferenceRun]) -> None:
        self._runs = runs
        self._places: deque[tuple[int, int]] = deque()
        self.logprobs = [torch.zeros_like(run.logprobs) for run in runs]

    def plan(
        self, samples: Sequence[EngineSequence], output_indices: Sequence[int]
    ) -> SamplingPlan:
        """Look up what the runs have there; requests are named by the index of their run."""
        for sequence, position in zip(samples, output_indices, strict=True):
            self._places.append((int(sequence.request.request_id), position))
        return SamplingPlan(tuple(samples), (), (), None, None)

    def launch(
        self, logits: torch.Tensor, plan: SamplingPlan, inputs: torch.Tensor, stream: Stream
    ) -> PendingSamples:
        """Choose as the run did; steps are launched in the order in which they were planned."""
        scores = torch.log_softmax(logits, dim=-1)
        places = [self._places.popleft() for _ in plan.samples]
        for row, (index, position) in enumerate(places):
            self.logprobs[index][position] = scores[row]
        token_ids = [self._runs[index].tokens[position] for index, position in places]
        return PendingSamples(stream.send(np.array(token_ids, dtype=np.int64)), plan)


@dataclass(frozen=True, slots=True)
class Noise:
    """Error of rounding on the reference's side, in nats."""

    mean: float
    largest: float

    @classmethod
    def measure(cls, runs: Sequence[ReferenceRun], exact: Sequence[torch.Tensor]) -> Noise:
        """Compare Hugging Face with itself: at its tokens, over all positions."""
        errors = torch.cat(
            [_at_tokens(run, run.logprobs - wide) for run, wide in zip(runs, exact, strict=True)]
        ).abs()
        return cls(errors.mean().item(), errors.max().item())

    def between_shared(self, again: Noise) -> Noise:
        """What is left of it between two sides with the same rounding; `again` is one of them."""
        return Noise(
            max(_SHARED_CODES * self.mean, again.mean),
            max(_SHARED_CODES * self.largest, again.largest),
        )

    @property
    def tie(self) -> float:
        """Gap between two tokens that rounding may close: each may be off by the most."""
        return 2 * self.largest + _FLOOR


def check_forced(
    engine: LLMEngine,
    runs: Sequence[ReferenceRun],
    exact: Sequence[torch.Tensor],
    again: Sequence[torch.Tensor] | None = None,
) -> Outcome:
    """Decode Hugging Face's tokens, one at a time, and compare at every position.

    Args:
        engine: with rounding; its sampler is replaced.
        runs: with the same rounding.
        exact: log-probabilities of the same tokens in fp32, from a plain cache.
        again: where all rounding is that of a quantised cache, the same log-probabilities as those
            of `runs`, with sums in another order.
    """
    noise = Noise.measure(runs, exact)
    limit = noise if again is None else noise.between_shared(Noise.measure(runs, again))
    sampler = ForcedSampler(runs)
    engine.runner.sampler = sampler
    params = [
        SamplingParams(temperature=0, max_tokens=len(run.tokens), ignore_eos=True) for run in runs
    ]
    run_all(engine, [run.prompt for run in runs], params)
    errors = [
        _at_tokens(run, found - (wide if again is None else run.logprobs)).abs()
        for run, found, wide in zip(runs, sampler.logprobs, exact, strict=True)
    ]
    flat = torch.cat(errors)
    mean, largest = flat.mean().item(), flat.max().item()
    mismatch = None
    for index, error in enumerate(errors):
        bad = (error > _MAX_MARGIN * limit.largest + _FLOOR).nonzero()
        if len(bad) and mismatch is None:
            mismatch = _mismatch(index, int(bad[0]), runs[index], sampler.logprobs[index])
    flips = 0
    for index, run in enumerate(runs):
        for position, token_id in enumerate(sampler.logprobs[index].argmax(dim=-1).tolist()):
            flips += token_id != run.tokens[position]
            gap = run.logprobs[position, run.tokens[position]] - run.logprobs[position, token_id]
            if gap > limit.tie and mismatch is None:
                mismatch = _mismatch(index, position, run, sampler.logprobs[index])
    problem = None
    off = "error" if again is None else "off Hugging Face with the same rounding"
    if mean > _MEAN_MARGIN * limit.mean + _FLOOR:
        problem = f"{off}: mean {mean:.2e}, where Hugging Face's own error is {noise.mean:.2e}"
    note = (
        f"{off} mean {mean:.1e}, max {largest:.1e}; Hugging Face's own error {noise.mean:.1e}, "
        f"{noise.largest:.1e}; {flips} near-ties preferred otherwise"
    )
    num_tokens = sum(len(run.tokens) for run in runs)
    return Outcome(Tier.FORCED, "all at once", num_tokens, note, mismatch, problem)


def check_free(
    bench: EngineBench,
    scenario: Scenario,
    runs: Sequence[ReferenceRun],
    exact: Sequence[torch.Tensor],
    num_tokens: int,
    again: Sequence[torch.Tensor] | None = None,
) -> Outcome:
    """Decode freely in a scenario; the first token that differs must have been a near-tie."""
    noise = Noise.measure(runs, exact)
    if again is not None:
        noise = noise.between_shared(Noise.measure(runs, again))
    params = SamplingParams(temperature=0, max_tokens=num_tokens, logprobs=0)
    outputs, special = run_scenario(bench, scenario, runs, params)
    mismatch = None
    num_flips = num_compared = 0
    for index, (run, output) in enumerate(zip(runs, outputs, strict=True)):
        found = output.outputs[0].token_ids
        position = first_difference(run.tokens, found)
        num_compared += len(run.tokens) if position is None else position + 1
        if position is None:
            continue
        num_flips += 1
        is_tie = position < min(len(run.tokens), len(found)) and bool(
            run.logprobs[position, run.tokens[position]] - run.logprobs[position, found[position]]
            <= noise.tie
        )
        if not is_tie and mismatch is None:
            mismatch = describe(index, position, run, output)
    note = f"{num_flips} of {len(runs)} prompts went apart at a near-tie (within {noise.tie:.1e})"
    note = "; ".join(filter(None, (special, note)))
    return Outcome(Tier.FREE, scenario.name, num_compared, note, mismatch)


def _at_tokens(run: ReferenceRun, values: torch.Tensor) -> torch.Tensor:
    return values.gather(1, torch.tensor(run.tokens)[:, None])[:, 0]


def _mismatch(index: int, position: int, run: ReferenceRun, logprobs: torch.Tensor) -> Mismatch:
    token_id = int(logprobs[position].argmax())
    expected = run.tokens[position]
    return Mismatch(
        index,
        position,
        token_id,
        logprobs[position, token_id].item(),
        expected,
        run.logprobs[position, expected].item(),
    )
