"""The engine process's life: take messages, make a step, tell what it gave."""

from __future__ import annotations

import time

from runtime.engine import LLMEngine
from runtime.errors import EngineError, InvalidParameterError, QueueFullError
from runtime.outputs import RequestOutput
from runtime.server.channel import ChannelClosedError, EngineChannel
from runtime.server.growth import Growth
from runtime.server.messages import (
    Abort,
    Accepted,
    Advance,
    Configure,
    EngineGauges,
    Refusal,
    Refused,
    Step,
    Submit,
    ToEngine,
)


class EngineLoop:
    """Serves one front end; an error that is no single request's ends the loop, and the process."""

    def __init__(
        self, engine: LLMEngine, channel: EngineChannel, max_queued_tokens: int | None = None
    ) -> None:
        """Bind.

        Args:
            engine: with no request in it.
            channel: to the front end.
            max_queued_tokens: prompt tokens that may wait for their first turn; None: no bound.
        """
        self._engine = engine
        self._channel = channel
        self._max_queued_tokens = max_queued_tokens
        self._growth = Growth()
        self._unstarted: dict[str, int] = {}  # request -> its prompt's tokens
        self._num_queued_tokens = 0
        self._num_tokens_told = 0

    def run(self) -> None:
        """Serve until the front end closes its end."""
        try:
            while True:
                for message in self._channel.receive(wait=not self._engine.has_unfinished):
                    self._take(message)
                if self._engine.has_unfinished:
                    self._step()
        except ChannelClosedError:
            return

    def _take(self, message: ToEngine) -> None:
        match message:
            case Submit():
                self._channel.send(self._submit(message))
            case Abort():
                for request_id in message.request_ids:
                    self._engine.abort(request_id)
                    self._growth.forget(request_id)
                    self._leave_queue(request_id)
                self._channel.send(Step(self._gauges()))
            case Configure():
                raise ValueError("an engine is configured once")

    def _submit(self, message: Submit) -> Accepted | Refused:
        request_id = message.request_id
        num_tokens = len(message.prompt_token_ids)
        limit = self._max_queued_tokens
        # A prompt longer than the bound still gets its turn, as long as no other one waits.
        if limit is not None and self._unstarted and self._num_queued_tokens + num_tokens > limit:
            return Refused(
                request_id,
                Refusal.QUEUE_FULL,
                f"prompts of {self._num_queued_tokens} tokens are waiting: try again later",
            )
        try:
            self._engine.add_request(
                request_id,
                message.prompt_token_ids,
                message.beam_search or message.sampling,
                priority=message.priority,
                cache_salt=message.cache_salt,
            )
        except InvalidParameterError as error:
            return Refused(request_id, Refusal.INVALID, str(error), error.field)
        except QueueFullError as error:
            return Refused(request_id, Refusal.QUEUE_FULL, str(error))
        except EngineError as error:
            return Refused(request_id, Refusal.INVALID, str(error))
        self._growth.add(request_id)
        self._unstarted[request_id] = num_tokens
        self._num_queued_tokens += num_tokens
        return Accepted(request_id)

    def _step(self) -> None:
        start_s = time.monotonic()
        outputs = self._engine.step()
        advances: list[Advance] = []
        failed: list[tuple[str, str]] = []
        for output in outputs:
            self._tell(output, advances, failed)
        started = [name for name in self._unstarted if self._engine.scheduler.has_started(name)]
        for request_id in started:
            self._leave_queue(request_id)
        stats = self._engine.scheduler.stats()
        num_tokens = stats.num_scheduled_tokens - self._num_tokens_told
        self._num_tokens_told = stats.num_scheduled_tokens
        self._channel.send(Step(self._gauges(), advances, failed, started, num_tokens, start_s))

    def _tell(
        self, output: RequestOutput, advances: list[Advance], failed: list[tuple[str, str]]
    ) -> None:
        if output.error is None:
            advances.append(self._growth.advance(output))
            return
        failed.append((output.request_id, output.error))
        self._growth.forget(output.request_id)
        self._leave_queue(output.request_id)

    def _leave_queue(self, request_id: str) -> None:
        self._num_queued_tokens -= self._unstarted.pop(request_id, 0)

    def _gauges(self) -> EngineGauges:
        stats = self._engine.scheduler.stats()
        return EngineGauges(
            num_running=stats.num_running,
            num_waiting=stats.num_waiting + stats.num_swapped,
            num_used_blocks=stats.num_usable_blocks - stats.num_free_blocks,
            num_usable_blocks=stats.num_usable_blocks,
            num_preemptions=sum(stats.num_preemptions.values()),
            num_prefix_queries=stats.num_prefix_queries,
            num_prefix_hits=stats.num_prefix_hits,
        )
