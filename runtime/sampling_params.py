"""What a caller may ask of sampling and of beam search; checked on construction, then frozen.

Names and defaults follow vLLM's `SamplingParams` and `BeamSearchParams`, so that requests written
for it mean the same here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from runtime.errors import InvalidParameterError

MAX_SEED = 2**63 - 1
LEAST_TEMPERATURE = 1e-3
"""Below it, only ties could still be drawn, and logits divided by it might overflow: greedy."""


def _check(holds: bool, field: str, value: object, accepts: str) -> None:
    if not holds:
        raise InvalidParameterError(field, value, accepts)


def _is_int(value: object, low: int, high: int | None = None) -> bool:
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return value >= low and (high is None or value <= high)


def _is_float(value: object, low: float, high: float, *, low_open: bool = False) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return False
    return low <= value <= high and not (low_open and value == low)


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose and when to stop. Raises InvalidParameterError, naming the field."""

    n: int = 1
    """Sequences to sample from one prompt; they share its blocks."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    """0, and what is next to it, is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 considers every token; so does -1, which clients of other servers send."""
    min_p: float = 0.0
    seed: int | None = None
    """The random numbers of a sequence depend on this, its index and the token's index only."""
    stop: tuple[str, ...] = ()
    """Strings that end the text; a single string or a list is taken too, and kept as a tuple."""
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    max_tokens: int | None = 16
    """None: until the model's context, or the whole pool of blocks, is full."""
    min_tokens: int = 0
    """Stop tokens do not count before this many output tokens."""
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logit_bias: Mapping[int, float] | None = None
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    detokenize: bool = True

    def __post_init__(self) -> None:
        given: object = self.stop
        stop = (given,) if isinstance(given, str) else tuple(self.stop)
        object.__setattr__(self, "stop", stop)
        object.__setattr__(self, "stop_token_ids", tuple(self.stop_token_ids))
        _check(_is_int(self.n, 1), "n", self.n, "an integer of at least 1")
        for field in ("presence_penalty", "frequency_penalty"):
            value = getattr(self, field)
            _check(_is_float(value, -2, 2), field, value, "a number from -2 to 2")
        _check(
            _is_float(self.repetition_penalty, 0.01, 100),
            "repetition_penalty",
            self.repetition_penalty,
            "a number from 0.01 to 100",
        )
        _check(
            _is_float(self.temperature, 0, 1000),
            "temperature",
            self.temperature,
            "a number from 0 to 1000",
        )
        _check(
            _is_float(self.top_p, 0, 1, low_open=True), "top_p", self.top_p, "above 0 and at most 1"
        )
        _check(_is_int(self.top_k, -1), "top_k", self.top_k, "a count, or 0 for every token")
        _check(_is_float(self.min_p, 0, 1), "min_p", self.min_p, "a number from 0 to 1")
        _check(
            self.seed is None or _is_int(self.seed, -MAX_SEED - 1, MAX_SEED),
            "seed",
            self.seed,
            "a 64-bit integer or None",
        )
        _check(
            all(isinstance(text, str) and text for text in stop),
            "stop",
            self.stop,
            "strings that are not empty",
        )
        _check(
            all(_is_int(token, 0) for token in self.stop_token_ids),
            "stop_token_ids",
            self.stop_token_ids,
            "token ids of at least 0",
        )
        _check(
            not stop or self.detokenize,
            "detokenize",
            self.detokenize,
            "True where stop strings are given, as they are found in the text",
        )
        _check(
            self.max_tokens is None or _is_int(self.max_tokens, 1),
            "max_tokens",
            self.max_tokens,
            "an integer of at least 1, or None",
        )
        _check(
            _is_int(self.min_tokens, 0, self.max_tokens),
            "min_tokens",
            self.min_tokens,
            "an integer from 0 to max_tokens",
        )
        for field in ("logprobs", "prompt_logprobs"):
            value = getattr(self, field)
            _check(value is None or _is_int(value, 0), field, value, "a count or None")
        bias = {} if self.logit_bias is None else self.logit_bias
        _check(
            all(_is_int(token, 0) and _is_float(b, -100, 100) for token, b in bias.items()),
            "logit_bias",
            self.logit_bias,
            "a mapping from token ids to numbers from -100 to 100",
        )

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature < LEAST_TEMPERATURE


@dataclass(frozen=True, slots=True)
class BeamSearchParams:
    """Beam search in place of sampling. Raises InvalidParameterError, naming the field."""

    beam_width: int
    max_tokens: int = 16
    ignore_eos: bool = False
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        for field in ("beam_width", "max_tokens"):
            value = getattr(self, field)
            _check(_is_int(value, 1), field, value, "an integer of at least 1")
        _check(
            _is_float(self.length_penalty, -math.inf, math.inf),
            "length_penalty",
            self.length_penalty,
            "a finite number",
        )
