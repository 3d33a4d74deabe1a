"""The tree of errors that a caller of the engine can meet; it owns the words, nothing else.

* EngineError                    the base
  x InvalidParameterError          one field of a request or a configuration is off; names it
  x RequestRefusedError            a well-formed request that this engine cannot take
    - DuplicateRequestError          its id is in use
    - PromptTooLongError             the prompt leaves no room for one output token
    - NeverFitsError                 its KV cache would not fit in an empty pool
    - ChatRefusedError               the model's chat template cannot take the messages
    - QueueFullError                 too many requests wait already; the only one worth retrying
  x RequestFailedError             the engine failed on one request's own work
  x ModelOutputError               the model computed what is not a number for a request
  x ModelError                     the model that was named cannot be served
    - ModelFolderError               no such folder, or a file of it is missing or unreadable
    - UnknownArchitectureError       no model family has this name; lists those that exist
    - UnsupportedModelError          transformers has it, but it cannot be served exactly; says why
    - ConfigFieldError               a field of config.json is missing, wrong or not supported
    - CheckpointError                weights are missing, damaged, or in a format that is refused
    - WeightError                    a tensor is missing, left over, or of another shape
    - ChatTemplateError              messages are given, and there is no sound chat template
    - TokenizerError                 text is asked for, and the folder has no tokenizer
  x DeviceError                    the operations that were chosen cannot run on this machine
  x KernelError                    tuned kernels cannot be read, rendered or bound at all
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EngineError(Exception):
    """Base of every error that the engine raises on purpose; each is the caller's to mend."""

    exit_code = 2


class InvalidParameterError(EngineError):
    """A parameter is out of its range; the message names the field and what it accepts."""

    def __init__(self, field: str, value: object, accepts: str) -> None:
        super().__init__(f"{field}={value!r} is not valid: {field} must be {accepts}")
        self.field = field
        self.value = value


class BenchmarkError(EngineError):
    """A contender of a benchmark has failed; the message names it and carries its last words."""

    exit_code = 1


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


class ChatRefusedError(RequestRefusedError):
    """The model's chat template refuses the messages, fails on them, or exceeds its limits."""


class QueueFullError(RequestRefusedError):
    """The waiting queue is at its bound; the same request may be taken later."""

    def __init__(self, max_queue_len: int) -> None:
        super().__init__(
            f"{max_queue_len} requests are waiting, which is max_queue_len: try again later"
        )


class RequestFailedError(EngineError):
    """An error of the engine's has ended one request; the others are not affected."""

    exit_code = 1

    def __init__(self, problem: str) -> None:
        super().__init__(f"the engine failed on this request: {problem}")


class ModelOutputError(EngineError):
    """The model's scores for a request are not numbers: its weights overflow, or are damaged."""

    exit_code = 1


class ModelError(EngineError):
    """The model that was named cannot be served."""


class ModelFolderError(ModelError):
    """There is no such folder, or one of its files is missing or cannot be read."""


class UnknownArchitectureError(ModelError):
    """No model family has this name."""

    def __init__(
        self, where: str, name: str, choices: Iterable[str], others: Iterable[str] = ()
    ) -> None:
        """Name the families, and how many others transformers has."""
        names = sorted(choices)
        rest = set(others) - set(names)
        near = difflib.get_close_matches(name, [*names, *rest], n=2, cutoff=0.6)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        more = f", and {len(rest)} causal language models of transformers" if rest else ""
        super().__init__(
            f"{where}: unknown architecture {name!r}.{hint} Supported: {', '.join(names)}{more}"
        )
        self.name = name
        self.choices = tuple(names)


class UnsupportedModelError(ModelError):
    """transformers knows the model, and this engine has no way to serve it exactly."""


class ConfigFieldError(ModelError):
    """A field of a model's config.json is missing, wrong or asks for what is not supported."""

    def __init__(self, where: str, field: str, problem: str) -> None:
        super().__init__(f"{where}: field {field!r} {problem}")
        self.field = field


class CheckpointError(ModelError):
    """The weights are missing, damaged, or in a format that is refused."""


class WeightError(ModelError):
    """A tensor of the checkpoint is missing, left over, or of another shape."""


class ChatTemplateError(ModelError):
    """Messages are given, and the model's folder has no chat template that can be used."""


class TokenizerError(ModelError):
    """Text is asked for, and the model's folder has no tokenizer that can be read."""


class DeviceError(EngineError):
    """The operation set that was chosen cannot run here: no such GPU, or no interpreter."""

    exit_code = 3


class KernelError(EngineError):
    """Tuned kernels cannot be had at all: the folder for generated code is unusable, say."""

    exit_code = 1
