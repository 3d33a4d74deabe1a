"""The front end's end of the socket: submits, aborts, and hands out what comes back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Protocol

from runtime.server.channel import LENGTH, frame
from runtime.server.exchange import (
    EngineFailedError,
    EngineGoneError,
    Exchange,
    RequestRejectedError,
)
from runtime.server.messages import (
    Abort,
    Accepted,
    Advance,
    Configure,
    EngineFacts,
    EngineGauges,
    FromEngine,
    LoadFailed,
    Progress,
    Ready,
    Refused,
    Step,
    Submit,
    ToEngine,
    decode_from_engine,
    encode,
)


class Observer(Protocol):
    """Hears what passes, for metrics."""

    def submitted(self, submit: Submit) -> None:
        """A request has been sent to the engine."""
        ...

    def refused(self, refused: Refused) -> None:
        """The engine has refused a request."""
        ...

    def stepped(self, step: Step) -> None:
        """A step has ended."""
        ...

    def dropped(self, request_ids: Sequence[str]) -> None:
        """Requests were aborted, or lost with the engine."""
        ...


class EngineLoadError(Exception):
    """The engine could not load the model; carries the exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class EngineClient:
    """Speaks to one engine process, from one event loop."""

    def __init__(self, observer: Observer, on_progress: Callable[[str], None]) -> None:
        self.gauges = EngineGauges()
        self.is_gone = False
        self._observer = observer
        self._on_progress = on_progress
        self._live: dict[str, Exchange] = {}
        self._facts: asyncio.Future[EngineFacts] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._gone = asyncio.Event()

    @property
    def num_live(self) -> int:
        """Requests that the engine has, or is about to get."""
        return len(self._live)

    async def connect(self, connection: socket.socket, configure: Configure) -> EngineFacts:
        """Configure the engine, and wait until it has loaded.

        Raises:
            EngineLoadError: it cannot load the model.
            EngineGoneError: it died.
        """
        reader, self._writer = await asyncio.open_unix_connection(sock=connection)
        self._facts = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read(reader))
        self._send(configure)
        return await self._facts

    async def open(self, submits: Sequence[Submit]) -> Exchange:
        """Send requests, and wait until the engine has taken them all.

        Raises:
            RequestRejectedError: one was refused; none stays behind.
            EngineGoneError: the engine has died.
        """
        exchange = Exchange([submit.request_id for submit in submits], self.abort)
        if self.is_gone:
            raise EngineGoneError
        for submit in submits:
            self._live[submit.request_id] = exchange
            self._observer.submitted(submit)
            self._send(submit)
        try:
            await exchange.admitted()
        except BaseException:
            exchange.close()
            raise
        return exchange

    def abort(self, request_ids: Sequence[str]) -> None:
        """End requests; those that are not live are passed over."""
        live = [name for name in request_ids if self._live.pop(name, None) is not None]
        if live:
            self._observer.dropped(live)
            self._send(Abort(live))

    def fail_all(self, error: Exception) -> None:
        """End every request with an error."""
        for exchange in set(self._live.values()):
            exchange.fail(error)
        self.abort(list(self._live))

    async def wait_gone(self) -> None:
        """Wait for the engine's end."""
        await self._gone.wait()

    async def close(self) -> None:
        """Let the engine go; it leaves when the socket is closed."""
        if self._reading is not None:
            self._reading.cancel()
        if self._writer is not None:
            self._writer.close()
        self._lose()

    def _send(self, message: ToEngine) -> None:
        if not self.is_gone and self._writer is not None and not self._writer.is_closing():
            self._writer.write(frame(encode(message)))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                (size,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
                self._take(decode_from_engine(await reader.readexactly(size)))
        except (asyncio.IncompleteReadError, ConnectionError):
            self._lose()

    def _lose(self) -> None:
        if self.is_gone:
            return
        self.is_gone = True
        if self._facts is not None and not self._facts.done():
            self._facts.set_exception(EngineGoneError())
        for exchange in set(self._live.values()):
            exchange.fail(EngineGoneError())
        self._observer.dropped(list(self._live))
        self._live.clear()
        self._gone.set()

    def _take(self, message: FromEngine) -> None:
        match message:
            case Step():
                self._take_step(message)
            case Accepted():
                if message.request_id in self._live:
                    self._live[message.request_id].take_admission(message.request_id)
            case Refused():
                self._observer.refused(message)
                exchange = self._live.pop(message.request_id, None)
                if exchange is not None:
                    exchange.fail(RequestRejectedError(message), message.request_id)
            case Progress():
                self._on_progress(message.stage)
            case Ready():
                assert self._facts is not None
                self._facts.set_result(message.facts)
            case LoadFailed():
                assert self._facts is not None
                self._facts.set_exception(EngineLoadError(message.message, message.exit_code))

    def _take_step(self, step: Step) -> None:
        self.gauges = step.gauges
        self._observer.stepped(step)
        for advance in step.advances:
            self._take_advance(advance)
        for request_id, problem in step.failed:
            exchange = self._live.pop(request_id, None)
            if exchange is not None:
                exchange.fail(EngineFailedError(problem), request_id)

    def _take_advance(self, advance: Advance) -> None:
        exchange = self._live.get(advance.request_id)
        if exchange is None:
            return  # aborted while the step ran
        if advance.finished:
            del self._live[advance.request_id]
        exchange.take_advance(advance)
