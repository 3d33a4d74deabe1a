"""What every handler works with: the engine's client, the tokenizer, the server's state."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import TypeVar

from runtime.chat_template import ChatTemplate
from runtime.errors import ModelOutputError
from runtime.server.api_error import ApiError, bad_request, busy
from runtime.server.config import ServerConfig
from runtime.server.engine_client import EngineClient
from runtime.server.exchange import (
    EngineFailedError,
    EngineGoneError,
    Exchange,
    RequestRejectedError,
)
from runtime.server.messages import EngineFacts, Refusal, Submit
from runtime.server.metrics import ServerMetrics
from runtime.tokenizer import Tokenizer

T = TypeVar("T")


class ServerStatus(Enum):
    """READY is the only state in which requests are taken."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    DEAD = "dead"


class ShuttingDownError(Exception):
    """The server ends, and with it the request."""


class Frontend:
    """Shared by all handlers of one server, within one event loop."""

    def __init__(self, config: ServerConfig, client: EngineClient, metrics: ServerMetrics) -> None:
        self.config = config
        self.client = client
        self.metrics = metrics
        self.status = ServerStatus.LOADING
        self.created_s = int(time.time())
        self.defaults: Mapping[str, float | int] = {}
        """Sampling parameters that the model's folder recommends."""
        self._facts: EngineFacts | None = None
        self._tokenizer: Tokenizer | None = None
        self._template: ChatTemplate | None = None
        # One thread: a tokenizer is not made for several, and none may hold up the event loop.
        self._worker = ThreadPoolExecutor(1, "text")

    def open(
        self, facts: EngineFacts, tokenizer: Tokenizer | None, template: ChatTemplate | None
    ) -> None:
        """Begin to take requests."""
        self._facts = facts
        self._tokenizer = tokenizer
        self._template = template
        self.status = ServerStatus.READY

    def close(self) -> None:
        """Let the worker thread go."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    @property
    def model_name(self) -> str:
        """What answers say."""
        return self.config.served_model_names[0]

    @property
    def facts(self) -> EngineFacts:
        """Of the engine; raises ApiError 503 while there is none."""
        if self._facts is None:
            self.require_ready()
        assert self._facts is not None
        return self._facts

    @property
    def known_facts(self) -> EngineFacts | None:
        """Of the engine; None while it loads."""
        return self._facts

    @property
    def tokenizer(self) -> Tokenizer:
        """Of the model; raises ApiError 400 without one."""
        if self._tokenizer is None:
            raise bad_request(None, "this model has no tokenizer: send token ids, not text")
        return self._tokenizer

    @property
    def has_tokenizer(self) -> bool:
        """Whether text can be taken and given."""
        return self._tokenizer is not None

    @property
    def has_template(self) -> bool:
        """Whether conversations can be taken."""
        return self._template is not None

    @property
    def template(self) -> ChatTemplate:
        """Of the model; raises ApiError 400 without one."""
        if self._template is None:
            raise bad_request(
                "messages", "this model has no chat template: use /v1/completions, with a prompt"
            )
        return self._template

    def require_ready(self) -> None:
        """Raise ApiError 503, or 500 where the engine is lost, unless requests are taken."""
        if self.status is ServerStatus.READY:
            return
        self.metrics.reject(self.status.value)
        if self.status is ServerStatus.DEAD:
            raise engine_gone()
        words = {ServerStatus.LOADING: "the model is loading", ServerStatus.DRAINING: SHUTTING_DOWN}
        raise busy(words[self.status], 5)

    def require_model(self, name: str | None) -> None:
        """Raise ApiError 404 for a model that is not served; none means the only one."""
        if name is not None and name not in self.config.served_model_names:
            served = ", ".join(self.config.served_model_names)
            raise ApiError(404, f"the model is not served here; there is {served}", "model")

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run what may take long beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    def new_ids(self, count: int) -> tuple[str, list[str]]:
        """A random name for a request, and one for each of its prompts; clients choose neither."""
        stem = secrets.token_hex(16)
        return stem, [f"{stem}-{index}" for index in range(count)]

    async def submit(self, submits: Sequence[Submit], names: Mapping[str, str]) -> Exchange:
        """Hand requests to the engine, and wait until it has taken them.

        Args:
            submits: all or none of them are taken.
            names: the engine's field → the API's, where they differ.

        Raises:
            ApiError: 503 if the queue is full, 400 for what the engine refuses.
        """
        limit = self.facts.max_queue_len + self.facts.max_num_seqs
        if self.client.num_live + len(submits) > limit:
            self.metrics.reject("queue_full")
            if len(submits) > limit:
                raise bad_request("prompt", f"prompt: at most {limit} at once fit in the queue")
            raise busy(f"{self.client.num_live} requests are in work: try again later")
        try:
            return await self.client.open(submits)
        except RequestRejectedError as error:
            refused = error.refused
            if refused.refusal is Refusal.QUEUE_FULL:
                raise busy(refused.message) from error
            field = refused.field
            field = None if field is None else names.get(field, field)
            raise bad_request(field, refused.message) from error
        except ENDINGS as error:
            raise to_api_error(error) from error


SHUTTING_DOWN = "the server is shutting down"


def engine_gone() -> ApiError:
    """500: the engine process has died, and the server is about to end."""
    return ApiError(500, "the engine has died", headers={"x-should-retry": "false"})


ENDINGS = (EngineGoneError, EngineFailedError, ShuttingDownError)
"""What may end a request from within."""


def to_api_error(error: Exception) -> ApiError:
    """The answer for one of `ENDINGS`."""
    if isinstance(error, EngineGoneError):
        return engine_gone()
    if isinstance(error, EngineFailedError):
        # What went wrong inside is for the log; what the model computed is the caller's to know.
        _, is_model, said = str(error).partition(f"{ModelOutputError.__name__}: ")
        what = f": {said}" if is_model else ""
        return ApiError(500, f"the engine failed on this request{what}")
    assert isinstance(error, ShuttingDownError)
    return busy(SHUTTING_DOWN, 5)
