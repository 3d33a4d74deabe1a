"""How often each token occurs in the sequences with penalties, kept on the device.

The newest token of a sequence may be known to the device alone, so counts are kept there and grow
by each step's input. What is missing for any other reason (a first sample, a fork) is counted anew
from the tokens that the host knows.
"""

from __future__ import annotations

from collections.abc import Sequence as Samples
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from runtime.sequence import Sequence
from runtime.stream import Stream


@dataclass(frozen=True, slots=True, eq=False)
class CountPlan:
    """What one step adds to the counts; slots are rows of the counts."""

    slots: NDArray[np.int64]
    """One per row with penalties."""
    is_output: NDArray[np.int32]
    """1 where the input token of the step is an output token, per row."""
    fresh_slots: NDArray[np.int64]
    """Slots to count anew."""
    seen_slots: NDArray[np.int64]
    """With `seen_tokens`: (slot, token) pairs to add to those, prompt and output."""
    seen_tokens: NDArray[np.int64]
    seen_is_output: NDArray[np.int32]


class TokenCounts:
    """Two tables [num_slots, vocab_size]; a slot is a live sequence's from first use to its end."""

    def __init__(self) -> None:
        self._slots: dict[Sequence, tuple[int, int]] = {}  # slot, tokens that were counted
        self._free: list[int] = []
        self._num_slots = 0
        self._seen: torch.Tensor | None = None  # bool [num_slots, vocab_size]
        self._output: torch.Tensor | None = None  # int32 [num_slots, vocab_size]

    def plan(self, samples: Samples[Sequence], output_indices: Samples[int]) -> CountPlan:
        """Plan to count all tokens before output token `output_indices[row]` of each sequence.

        The last of them is the input of the step; all before are known to the host, or counted.
        """
        for sequence in [each for each in self._slots if each.is_finished]:
            self._free.append(self._slots.pop(sequence)[0])
        slots, fresh, seen_slots, seen_tokens, seen_is_output = [], [], [], [], []
        for sequence, output_index in zip(samples, output_indices, strict=True):
            before = sequence.num_prompt_tokens + output_index - 1
            # A slot that another sequence has left must be counted anew, be it for no token.
            slot, counted = self._slots.get(sequence) or (self._take_slot(), None)
            if counted != before:
                known = sequence.token_ids[:before]
                assert len(known) == before, f"{sequence}: tokens to count are not known yet"
                fresh.append(slot)
                seen_slots += [slot] * before
                seen_tokens += known
                num_output = max(0, before - sequence.num_prompt_tokens)
                seen_is_output += [0] * (before - num_output) + [1] * num_output
            self._slots[sequence] = (slot, before + 1)
            slots.append(slot)
        return CountPlan(
            slots=np.array(slots, dtype=np.int64),
            is_output=np.array([index > 0 for index in output_indices], dtype=np.int32),
            fresh_slots=np.array(fresh, dtype=np.int64),
            seen_slots=np.array(seen_slots, dtype=np.int64),
            seen_tokens=np.array(seen_tokens, dtype=np.int64),
            seen_is_output=np.array(seen_is_output, dtype=np.int32),
        )

    def count(
        self, plan: CountPlan, inputs: torch.Tensor, vocab_size: int, stream: Stream
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Count a step's input tokens, int64 [num_rows].

        Returns:
            Per row of the plan, whether each token has occurred, bool [num_rows, vocab_size], and
            how often in the output, int32 [num_rows, vocab_size].
        """
        most = max(plan.slots.tolist()) + 1
        seen, output = self._grow(most, vocab_size, stream.device)
        if len(plan.fresh_slots):
            fresh = stream.send(plan.fresh_slots)
            seen.index_fill_(0, fresh, False)
            output.index_fill_(0, fresh, 0)
            places = stream.send(plan.seen_slots * vocab_size + plan.seen_tokens)
            seen.view(-1).index_fill_(0, places, True)
            output.view(-1).index_add_(0, places, stream.send(plan.seen_is_output))
        slots = stream.send(plan.slots)
        places = slots * vocab_size + inputs
        seen.view(-1).index_fill_(0, places, True)
        output.view(-1).index_add_(0, places, stream.send(plan.is_output))
        return seen.index_select(0, slots), output.index_select(0, slots)

    def _take_slot(self) -> int:
        if self._free:
            return self._free.pop()
        self._num_slots += 1
        return self._num_slots - 1

    def _grow(
        self, num_slots: int, vocab_size: int, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self._seen is None or self._output is None or num_slots > len(self._seen):
            room = max(8, 2 * num_slots)
            seen = torch.zeros((room, vocab_size), dtype=torch.bool, device=device)
            output = torch.zeros((room, vocab_size), dtype=torch.int32, device=device)
            if self._seen is not None and self._output is not None:
                seen[: len(self._seen)] = self._seen
                output[: len(self._output)] = self._output
            self._seen, self._output = seen, output
        return self._seen, self._output
