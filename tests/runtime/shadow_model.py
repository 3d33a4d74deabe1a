"""A "language model" that is a pure function of the token history, and what it says undisturbed.

A history is a 64-bit digest of everything before a position. Keys and values of a position are
stood in for by its history, so two positions hold equal content only if their whole prefixes, and
whatever else the cache depends on, are equal.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence as Tokens
from dataclasses import dataclass

from runtime.sequence import Request

VOCAB_SIZE = 24
EOS = 0
_MASK = 2**64 - 1


def mix(history: int, value: int) -> int:
    """One step of a 64-bit hash (the finaliser of splitmix64)."""
    x = (history ^ (value + 0x9E3779B97F4A7C15 + (history << 6) + (history >> 2))) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def root(request: Request) -> int:
    """History before the first token."""
    text = f"{request.lora_name!r} {request.cache_salt!r}"
    return mix(1, zlib.crc32(text.encode()))


def histories(request: Request, token_ids: Tokens[int]) -> list[int]:
    """History of each position."""
    found, history = [], root(request)
    for token_id in token_ids:
        history = mix(history, token_id)
        found.append(history)
    return found


def sample(request: Request, index: int, history: int, output_index: int) -> int:
    """Next token of sequence `index`: depends on its history, seed and token counter only."""
    seed = request.sampling_params.seed or 0
    return mix(mix(mix(history, seed), index), output_index) % VOCAB_SIZE


def candidates(request: Request, history: int) -> list[tuple[int, int]]:
    """(score, token) of the best continuations of a beam, the best first."""
    assert request.beam_search is not None
    first = mix(history, 7) % VOCAB_SIZE
    width = request.beam_search.beam_width + 1
    tokens = [(first + 5 * step) % VOCAB_SIZE for step in range(width)]
    return sorted(((mix(history, t) % 1000, t) for t in tokens), reverse=True)


@dataclass(frozen=True)
class Choice:
    """A continuation that a beam search goes on with, or ends with."""

    score: int
    parent: int
    token_id: int


def choose(
    request: Request, scores: list[int], found: list[list[tuple[int, int]]]
) -> tuple[list[Choice], list[Choice]]:
    """Return the best `beam_width` of all continuations: those that go on, those that end."""
    assert request.beam_search is not None
    every = [
        Choice(score + gain, parent, token_id)
        for parent, score in enumerate(scores)
        for gain, token_id in found[parent]
    ]
    every.sort(key=lambda choice: (-choice.score, choice.parent, choice.token_id))
    best = every[: request.beam_search.beam_width]
    return [c for c in best if c.token_id != EOS], [c for c in best if c.token_id == EOS]


def undisturbed_output(request: Request, index: int, max_total_tokens: int) -> list[int]:
    """Output of one sequence as if it were alone in an endless cache."""
    params = request.sampling_params
    history = histories(request, request.prompt_token_ids)[-1]
    output: list[int] = []
    stop_ids = request.stop_ids
    while True:
        output.append(sample(request, index, history, len(output)))
        if len(request.prompt_token_ids) + len(output) == max_total_tokens:
            return output
        if output[-1] in stop_ids and len(output) >= params.min_tokens:
            return output
        history = mix(history, output[-1])


def undisturbed_beams(request: Request, max_total_tokens: int) -> list[tuple[int, ...]]:
    """Sorted outputs that a beam search ends with, as if it were alone."""
    start = histories(request, request.prompt_token_ids)[-1]
    live: list[tuple[int, tuple[int, ...], int]] = [(0, (), start)]  # score, output, history
    ended: list[tuple[int, ...]] = []
    room = max_total_tokens - len(request.prompt_token_ids)
    while live:
        found = [candidates(request, history) for _, _, history in live]
        go_on, stop = choose(request, [score for score, _, _ in live], found)
        ended += [(*live[c.parent][1], c.token_id) for c in stop]
        live = [
            (c.score, (*live[c.parent][1], c.token_id), mix(live[c.parent][2], c.token_id))
            for c in go_on
        ]
        if live and len(live[0][1]) == room:
            ended += [output for _, output, _ in live]
            live = []
    return sorted(ended)
