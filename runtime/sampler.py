"""Chooses the next token of every sample in a step, and reports log-probabilities.

In three parts, so that the host can run ahead: `plan` reads the sequences and makes arrays,
`launch` works on the device alone, and `PendingSamples.read` turns what came back into what callers
see.
"""

from __future__ import annotations

from collections.abc import Sequence as Samples
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from runtime.draw import DrawLayout, DrawPlan, draw_tokens
from runtime.gather_logprobs import GatheredLogprobs, gather_logprobs
from runtime.logit_rules import RulePlan, apply_rules, changes_logits, plan_rules
from runtime.logprobs import PositionLogprobs
from runtime.random_stream import stream_key, stream_seed, uniforms
from runtime.sequence import Request, Sequence
from runtime.stream import Stream
from runtime.token_counts import TokenCounts


@dataclass(frozen=True, slots=True)
class BeamCandidates:
    """The best continuations of one beam, best first."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Sampled:
    """What was chosen, one entry per sample."""

    token_ids: list[int]
    """For a beam, a placeholder: the search chooses among the candidates."""
    logprobs: list[PositionLogprobs | None]
    """Of the model itself, before any penalty or temperature; None where not asked for."""
    candidates: list[BeamCandidates | None]
    """For beams only."""
    unsound: frozenset[int] = frozenset()
    """Samples whose logits have no finite maximum: what was chosen of them means nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class SamplingPlan:
    """What the device has to know of one step's samples."""

    samples: tuple[Sequence, ...]
    scored: tuple[int, ...]
    """Rows whose log-probabilities are wanted."""
    num_top: tuple[int, ...]
    """Most likely tokens to report, per scored row."""
    rules: RulePlan | None
    draw: DrawPlan | None


@dataclass(frozen=True, slots=True, eq=False)
class PendingSamples:
    """What was chosen, on the device or on the way to the host."""

    token_ids: torch.Tensor  # int64 [num_samples]
    plan: SamplingPlan
    scores: GatheredLogprobs | None = None
    largest: torch.Tensor | None = None  # float32 [num_samples], of the logits

    def download(self, stream: Stream) -> PendingSamples:
        """Copy to the host; `read` it once a later mark of the stream has passed."""
        scores = None if self.scores is None else self.scores.download(stream)
        largest = None if self.largest is None else stream.download(self.largest)
        return PendingSamples(stream.download(self.token_ids), self.plan, scores, largest)

    def read(self) -> Sampled:
        """Return what callers see."""
        samples = self.plan.samples
        token_ids: list[int] = self.token_ids.tolist()
        nothing: list[None] = [None] * len(samples)
        sampled = Sampled(token_ids, [*nothing], [*nothing], self._unsound())
        if self.scores is not None:
            found = self.scores.read(self.plan.num_top)
            top_ids, top_values = self.scores.top_ids.tolist(), self.scores.top_values.tolist()
            for place, row in enumerate(self.plan.scored):
                count = self.plan.num_top[place]
                if samples[row].is_beam:
                    sampled.candidates[row] = BeamCandidates(
                        tuple(top_ids[place][:count]), tuple(top_values[place][:count])
                    )
                else:
                    sampled.logprobs[row] = found[place]
        return sampled

    def _unsound(self) -> frozenset[int]:
        if self.largest is None:
            return frozenset()
        is_sound = np.isfinite(self.largest.numpy())
        return frozenset() if is_sound.all() else frozenset((~is_sound).nonzero()[0].tolist())


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """What stays the same from step to step while the same sequences are sampled."""

    samples: tuple[Sequence, ...]
    scored: tuple[int, ...]
    num_top: tuple[int, ...]
    ruled: tuple[int, ...]
    """Rows whose logits are changed by rules."""
    draw: DrawLayout | None
    keys: NDArray[np.uint64]
    """Name of the random stream of each row that is drawn, in the order of `draw.rows`."""


class Sampler:
    """Same step, same tokens: what it keeps are keys and counts that it could make again."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._counts = TokenCounts()
        self._keys: dict[Sequence, int] = {}
        self._layout = self._lay_out(())

    def plan(self, samples: Samples[Sequence], output_indices: Samples[int]) -> SamplingPlan:
        """Read what a step's samples ask for, on the host.

        Args:
            samples: sequence of each row of the logits to come.
            output_indices: which of its output tokens each row gives.
        """
        layout = self._layout
        present = tuple(samples)
        if present != layout.samples:
            layout = self._layout = self._lay_out(present)
        rules = draw = None
        if layout.ruled:
            rules = plan_rules(
                layout.ruled,
                [samples[row] for row in layout.ruled],
                [output_indices[row] for row in layout.ruled],
                self._counts,
            )
        if layout.draw is not None:
            indices = np.array(output_indices, dtype=np.uint64)[layout.draw.rows]
            draw = DrawPlan(layout.draw, uniforms(layout.keys, indices))
        return SamplingPlan(present, layout.scored, layout.num_top, rules, draw)

    def _lay_out(self, samples: tuple[Sequence, ...]) -> _Layout:
        scored: list[tuple[int, int]] = []
        ruled: list[int] = []
        drawn: list[int] = []
        for row, sequence in enumerate(samples):
            params = sequence.request.sampling_params
            if sequence.is_beam:
                scored.append((row, _num_candidates(sequence.request)))
                continue
            if params.logprobs is not None:
                scored.append((row, params.logprobs))
            if changes_logits(params):
                ruled.append(row)
            if params.temperature:
                drawn.append(row)
        draw = None
        if drawn:
            params_of = [samples[row].request.sampling_params for row in drawn]
            draw = DrawLayout.make(drawn, params_of)
        rows = [] if draw is None else draw.rows.tolist()
        return _Layout(
            samples=samples,
            scored=tuple(row for row, _ in scored),
            num_top=tuple(count for _, count in scored),
            ruled=tuple(ruled),
            draw=draw,
            keys=np.array(self._keys_of([samples[row] for row in rows]), dtype=np.uint64),
        )

    def launch(
        self, logits: torch.Tensor, plan: SamplingPlan, inputs: torch.Tensor, stream: Stream
    ) -> PendingSamples:
        """Choose one token per row, on the device.

        Args:
            logits: float32 [num_samples, vocab_size], contiguous; changed in place.
            plan: of this step.
            inputs: the token before each one to choose, int64 [num_samples].
            stream: of the logits' device.
        """
        logprobs = None
        if plan.scored:
            rows = stream.send(_array(plan.scored))
            logprobs = torch.log_softmax(logits.index_select(0, rows), dim=-1)
        if plan.rules is not None:
            apply_rules(logits, plan.rules, inputs, self._counts, stream)
        # The maximum comes with its place, and of a row with NaN it is NaN.
        largest, token_ids = logits.max(dim=-1)
        if plan.draw is not None:
            token_ids.index_copy_(0, *draw_tokens(logits, plan.draw, stream))
        if logprobs is None:
            return PendingSamples(token_ids, plan, largest=largest)
        chosen = token_ids.index_select(0, rows)
        scores = gather_logprobs(logprobs, chosen, max(plan.num_top))
        return PendingSamples(token_ids, plan, scores, largest)

    def _keys_of(self, samples: Samples[Sequence]) -> list[int]:
        known = self._keys
        if len(known) > 64 + 2 * len(samples):
            self._keys = known = {s: key for s, key in known.items() if not s.is_finished}
        for sequence in samples:
            if sequence not in known:
                request = sequence.request
                seed = request.sampling_params.seed
                if seed is None:
                    seed = stream_seed(self._seed, request.request_id)
                known[sequence] = stream_key(seed, sequence.index)
        return [known[sequence] for sequence in samples]


def _array(rows: Samples[int]) -> NDArray[np.int64]:
    return np.array(rows, dtype=np.int64)


def _num_candidates(request: Request) -> int:
    """As many as the search could take from one beam, were all others worse."""
    assert request.beam_search is not None
    return max(2, 1 + len(request.eos_token_ids)) * request.beam_search.beam_width
