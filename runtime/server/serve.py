"""The server's life: listen, load, serve, drain, and leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from runtime.chat_template import ChatTemplate
from runtime.errors import ChatTemplateError, EngineError, InvalidParameterError
from runtime.server.app import build_app
from runtime.server.config import ServerConfig
from runtime.server.engine_client import EngineClient, EngineLoadError
from runtime.server.engine_process import EngineProcess
from runtime.server.exchange import EngineGoneError
from runtime.server.frontend import Frontend, ServerStatus, ShuttingDownError
from runtime.server.generation_defaults import read_defaults
from runtime.server.heap import freeze_heap
from runtime.server.listener import HttpListener
from runtime.server.messages import EngineFacts, pack_config
from runtime.server.metrics import ServerMetrics
from runtime.tokenizer import Tokenizer

OK, FAILED, INTERRUPTED = 0, 1, 130

_LAST_WORDS_S = 1.0
"""After the engine's death, so that clients and load balancers can hear of it."""


ENGINE = "runtime.server.engine_main"
"""What the engine process runs."""


def serve(
    config: ServerConfig,
    say: Callable[[str], None] | None = None,
    engine_module: str = ENGINE,
) -> int:
    """Run a server until it is told to end; returns the exit code.

    Args:
        config: how.
        say: takes lines for the operator; standard error if None.
        engine_module: what the engine process runs.

    Raises:
        EngineError: the model cannot be served, or the address not be used.
    """
    return asyncio.run(Server(config, say or _print, engine_module).run())


class Server:
    """One front end, its engine process, and what happens to them."""

    def __init__(
        self, config: ServerConfig, say: Callable[[str], None], engine_module: str
    ) -> None:
        self._engine_module = engine_module
        self._settings = config
        self._say = say
        metrics = ServerMetrics(config.metrics_prefix, config.served_model_names[0])
        self._client = EngineClient(metrics, lambda stage: say(f"engine: {stage}"))
        self._front = Frontend(config, self._client, metrics)
        self._told_to_end = asyncio.Event()
        self._num_interrupts = 0
        self._exit_code = OK
        self._engine: EngineProcess | None = None
        self._http = HttpListener(build_app(self._front), config)

    async def run(self) -> int:
        """Listen, load, serve, drain; returns the exit code."""
        listener = _listen(self._settings.host, self._settings.port)
        self._catch_signals()
        self._engine = EngineProcess(self._engine_module)
        serving = asyncio.create_task(self._http.serve(sockets=[listener]))
        try:
            self._warn(listener)
            await self._live(self._engine, listener)
        finally:
            self._http.should_exit = True
            await serving
            await self._client.close()
            if self._front.status is ServerStatus.LOADING:
                self._engine.kill()
            else:
                self._engine.leave()
            self._front.close()
        return self._exit_code

    async def _live(self, engine: EngineProcess, listener: socket.socket) -> None:
        start_s = time.monotonic()
        loading = asyncio.create_task(self._load(engine))
        ending = asyncio.create_task(self._told_to_end.wait())
        await asyncio.wait({loading, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            loading.cancel()
            return
        try:
            facts = loading.result()
        except EngineLoadError as error:
            raise LoadError(str(error), error.exit_code) from error
        except EngineGoneError:
            self._say("error: the engine process died while loading; see its output above")
            self._exit_code = FAILED
            return
        self._introduce(facts, listener, time.monotonic() - start_s)
        dying = asyncio.create_task(self._client.wait_gone())
        await asyncio.wait({dying, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            await self._bury()
            return
        await self._drain(dying)
        dying.cancel()

    async def _load(self, engine: EngineProcess) -> EngineFacts:
        settings = self._settings
        configure = pack_config(settings.engine, settings.max_num_queued_tokens)
        connecting = asyncio.create_task(self._client.connect(engine.connection, configure))
        try:
            tokenizer, template = await asyncio.to_thread(self._load_text)
            facts = await connecting
        finally:
            connecting.cancel()
        freeze_heap()
        self._front.open(facts, tokenizer, template)
        return facts

    def _load_text(self) -> tuple[Tokenizer | None, ChatTemplate | None]:
        settings = self._settings
        if settings.use_generation_config:
            self._front.defaults = read_defaults(settings.engine.model)
        folder = settings.engine.text_folder
        tokenizer = None if settings.engine.skip_tokenizer else Tokenizer.load(folder)
        try:
            template = _template(folder, settings.chat_template)
        except ChatTemplateError as error:
            if settings.chat_template is not None:
                raise
            self._say(f"note: no /v1/chat/completions: {error}")
            template = None
        return tokenizer, template

    # ---- the end ----------------------------------------------------------------------------

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGINT:
            self._exit_code = INTERRUPTED
            self._num_interrupts += 1
            if self._num_interrupts > 1:
                if self._engine is not None:
                    self._engine.kill()
                os._exit(INTERRUPTED)
        self._told_to_end.set()

    async def _drain(self, dying: asyncio.Task[None]) -> None:
        self._front.status = ServerStatus.DRAINING
        count, timeout_s = self._client.num_live, self._settings.shutdown_timeout_s
        self._say(f"shutting down: {count} requests are in work, up to {timeout_s:g} s for them")
        end_s = time.monotonic() + timeout_s
        while self._client.num_live and time.monotonic() < end_s and not dying.done():
            await asyncio.sleep(0.05)
        if self._client.num_live:
            self._say(f"aborting {self._client.num_live} requests")
            self._client.fail_all(ShuttingDownError())

    async def _bury(self) -> None:
        self._front.status = ServerStatus.DEAD
        self._exit_code = FAILED
        self._say("error: the engine process has died; see its output above")
        await asyncio.sleep(_LAST_WORDS_S)

    # ---- what is printed --------------------------------------------------------------------

    def _warn(self, listener: socket.socket) -> None:
        host = listener.getsockname()[0]
        is_local = host.startswith("127.") or host == "::1"
        if not is_local and not self._settings.api_keys:
            self._say(f"warning: {host} is open to the network, and no --api-key is asked for")

    def _introduce(self, facts: EngineFacts, listener: socket.socket, load_s: float) -> None:
        names = ", ".join(self._settings.served_model_names)
        self._say(f"model    {names} ({facts.architecture}, {facts.dtype})")
        self._say(f"device   {facts.device}, operations: {facts.operations}")
        self._say(
            f"KV cache {facts.num_blocks} blocks of {facts.block_size} tokens; context "
            f"{facts.max_model_len}, at most {facts.max_num_seqs} sequences at once, queue "
            f"{facts.max_queue_len}"
        )
        for line in _kernel_lines(facts):
            self._say(f"kernels  {line}")
        self._say(f"ready    {address(listener)} (loaded in {load_s:.1f} s)")


def _kernel_lines(facts: EngineFacts) -> list[str]:
    """How many sizes of each tuned kernel were found at each tier; `--explain` lists them all."""
    counts = Counter((fact.kernel, fact.tier) for fact in facts.kernels)
    if not counts:
        return [f"none tuned: {facts.operations} operations"]
    return [
        f"{kernel}: {'untuned' if tier == 'default' else tier} for {number} "
        f"size{'s' if number > 1 else ''}"
        for (kernel, tier), number in counts.items()
    ]


class LoadError(EngineError):
    """The engine process could not load the model."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def address(listener: socket.socket) -> str:
    """URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(where[:2], family=family, backlog=2048)
    except OSError as error:
        raise InvalidParameterError(
            "port", port, f"free on {host}: {error.strerror or error}"
        ) from error


def _template(folder: Path, path: Path | None) -> ChatTemplate:
    if path is None:
        return ChatTemplate.load(folder)
    return ChatTemplate.load_file(folder, path)


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
