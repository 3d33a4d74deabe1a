"""The tree of errors that a caller of the engine can meet; it owns the words, nothing else.

* EngineError                    the base
  x InvalidParameterError          one field of a request or a configuration is off; names it
  x RequestRefusedError            a well-formed request that this engine cannot take
    - DuplicateRequestError          its id is in use
    - PromptTooLongError             the prompt leaves no room for one output token
    - NeverFitsError                 its KV cache would not fit in an empty pool
    - QueueFullError                 too many requests wait already; the only one worth retrying
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of every error that the engine raises on purpose."""


class InvalidParameterError(EngineError):
    """A parameter is out of its range; the message names the field and what it accepts."""

    def __init__(self, field: str, value: object, accepts: str) -> None:
        super().__init__(f"{field}={value!r} is not valid: {field} must be {accepts}")
        self.field = field
        self.value = value


class RequestRefusedError(EngineError):
    """A request is refused at submission; nothing of it was kept."""


class DuplicateRequestError(RequestRefusedError):
    """The request id belongs to a request that has not ended."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"request id {request_id!r} is in use: choose another, or abort it first")


class PromptTooLongError(RequestRefusedError):
    """The prompt fills the model's context and leaves no room for an output token."""

    def __init__(self, num_prompt_tokens: int, max_model_len: int) -> None:
        super().__init__(
            f"the prompt has {num_prompt_tokens} tokens, but max_model_len={max_model_len} must "
            "hold the prompt and at least one output token: shorten the prompt or raise "
            "max_model_len"
        )


class NeverFitsError(RequestRefusedError):
    """One sequence of the request needs more of something than the engine has in all."""

    def __init__(self, what: str, needed: int, available: int, remedy: str) -> None:
        super().__init__(
            f"the request needs {needed} {what}, but the engine has {available} in all: {remedy}"
        )
        self.needed = needed
        self.available = available


class QueueFullError(RequestRefusedError):
    """The waiting queue is at its bound; the same request may be taken later."""

    def __init__(self, max_queue_len: int) -> None:
        super().__init__(
            f"{max_queue_len} requests are waiting, which is max_queue_len: try again later"
        )
