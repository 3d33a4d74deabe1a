"""What the front end and the engine process say to each other: msgpack, one tagged array each."""

from __future__ import annotations

from enum import Enum

import msgspec
from pydantic import TypeAdapter

from runtime.config import EngineConfig
from runtime.sampling_params import BeamSearchParams, SamplingParams


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base: the class's name travels first."""


# ---- to the engine -----------------------------------------------------------------------------


class Configure(Message, frozen=True, array_like=True, tag=True):
    """The first message."""

    config: bytes
    """An `EngineConfig` as JSON."""
    max_queued_tokens: int | None = None


class Submit(Message, frozen=True, array_like=True, tag=True):
    """Queue a request; answered by `Accepted` or `Refused`."""

    request_id: str
    prompt_token_ids: list[int]
    sampling: SamplingParams
    beam_search: BeamSearchParams | None = None
    priority: int = 0
    cache_salt: str | None = None


class Abort(Message, frozen=True, array_like=True, tag=True):
    """End these requests now; those that have ended, or never were, are passed over."""

    request_ids: list[str]


ToEngine = Configure | Submit | Abort

# ---- from the engine ---------------------------------------------------------------------------


class Progress(Message, frozen=True, array_like=True, tag=True):
    """What is being loaded."""

    stage: str


class KernelFact(msgspec.Struct, frozen=True, array_like=True):
    """A tuned kernel in use, at some sizes."""

    operation: str
    sizes: str
    kernel: str
    tier: str
    provenance: str | None
    """"measured", "predicted", …"""
    gain: float | None
    """Over the kernel's default configuration."""


class EngineFacts(msgspec.Struct, frozen=True, array_like=True):
    """What the front end must know to refuse a request by itself, and to introduce the engine."""

    device: str
    dtype: str
    kv_dtype: str
    """Of keys and values in the KV cache."""
    operations: str
    architecture: str
    block_size: int
    num_blocks: int
    """Blocks that requests can have; block 0 is not among them."""
    max_model_len: int
    max_num_seqs: int
    max_queue_len: int
    max_pool_tokens: int
    vocab_size: int
    """Width of the logits, which may exceed the tokenizer's vocabulary."""
    has_priorities: bool
    kernels: list[KernelFact]
    load_s: float


class Ready(Message, frozen=True, array_like=True, tag=True):
    """The model is loaded."""

    facts: EngineFacts


class LoadFailed(Message, frozen=True, array_like=True, tag=True):
    """The model cannot be served; the process ends with this exit code."""

    message: str
    exit_code: int


class Refusal(Enum):
    """Why a request was not taken."""

    QUEUE_FULL = "queue_full"
    """May be taken later."""
    INVALID = "invalid"
    """The request is at fault."""


class Accepted(Message, frozen=True, array_like=True, tag=True):
    """The request is queued."""

    request_id: str


class Refused(Message, frozen=True, array_like=True, tag=True):
    """Nothing of the request was kept."""

    request_id: str
    refusal: Refusal
    message: str
    field: str | None = None


class TokenScore(msgspec.Struct, frozen=True, array_like=True):
    """One token's log-probability, and its text."""

    token_id: int
    text: str
    logprob: float
    rank: int


TokenScores = list[TokenScore]
"""The token at a position first, then the most likely ones there."""


class Delta(msgspec.Struct, frozen=True, array_like=True):
    """What one completion of a request has gained."""

    index: int
    text: str
    num_tokens: int
    scores: list[TokenScores] | None = None
    """One per new token, where log-probabilities were asked for."""
    finish_reason: str | None = None
    stop_reason: int | str | None = None


class Advance(msgspec.Struct, frozen=True, array_like=True):
    """What a request has gained by a step."""

    request_id: str
    deltas: list[Delta]
    finished: bool
    num_cached_tokens: int
    prompt_scores: list[TokenScores | None] | None = None
    """With a request's first tokens only."""


class EngineGauges(msgspec.Struct, frozen=True, array_like=True):
    """The engine's state after a step; counts are since its start."""

    num_running: int = 0
    num_waiting: int = 0
    num_used_blocks: int = 0
    num_usable_blocks: int = 0
    num_preemptions: int = 0
    num_prefix_queries: int = 0
    num_prefix_hits: int = 0


class Step(Message, frozen=True, array_like=True, tag=True):
    """A step has ended, or requests were aborted between steps."""

    gauges: EngineGauges
    advances: list[Advance] = []
    failed: list[tuple[str, str]] = []
    """(request, error) of those that an error has ended."""
    started: list[str] = []
    """Requests that got their first turn in it."""
    num_tokens: int = 0
    """Tokens computed, of prompts and outputs."""
    start_s: float = 0.0
    """When it began, on the clock that all processes share (CLOCK_MONOTONIC)."""


FromEngine = Progress | Ready | LoadFailed | Accepted | Refused | Step

_encoder = msgspec.msgpack.Encoder()
_configs = TypeAdapter(EngineConfig)
_to_engine: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)
_from_engine: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)


def encode(message: ToEngine | FromEngine) -> bytes:
    """Bytes of a message."""
    return _encoder.encode(message)


def decode_to_engine(data: bytes) -> ToEngine:
    """Message of bytes; raises msgspec.ValidationError where they are none."""
    return _to_engine.decode(data)


def decode_from_engine(data: bytes) -> FromEngine:
    """Message of bytes; raises msgspec.ValidationError where they are none."""
    return _from_engine.decode(data)


def pack_config(config: EngineConfig, max_queued_tokens: int | None = None) -> Configure:
    """Message that carries a configuration."""
    return Configure(_configs.dump_json(config), max_queued_tokens)


def unpack_config(message: Configure) -> EngineConfig:
    """Rebuild the configuration; its own checks run again."""
    return _configs.validate_json(message.config)
