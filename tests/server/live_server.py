"""A whole server within the test's process: a real engine on a thread, sockets on 127.0.0.1."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch
from tiny_models import save_model
from tiny_tokenizer import save_tokenizer

from runtime.chat_template import ChatTemplate
from runtime.config import EngineConfig
from runtime.engine import LLMEngine
from runtime.outputs import RequestOutput
from runtime.server.app import build_app
from runtime.server.channel import EngineChannel
from runtime.server.config import ServerConfig
from runtime.server.engine_client import EngineClient
from runtime.server.engine_loop import EngineLoop
from runtime.server.engine_main import describe
from runtime.server.frontend import Frontend, ServerStatus
from runtime.server.listener import HttpListener
from runtime.server.messages import Ready, pack_config
from runtime.server.metrics import ServerMetrics

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def save_served_model(folder: Path) -> Path:
    """A tiny Llama, tokenizer and chat template; its logits are wider than the tokenizer."""
    save_model("llama-server", folder)
    save_tokenizer(folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


class TestEngine(LLMEngine):
    """An engine whose steps can be held up, counted, and made to fail."""

    __test__ = False

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        self.may_step = threading.Event()
        self.may_step.set()
        self.num_steps = 0
        self.pause_s = 0.0
        self.before_step: Callable[[], None] | None = None

    def step(self) -> list[RequestOutput]:
        """Wait until steps are allowed, then make one."""
        self.may_step.wait()
        if self.pause_s:
            time.sleep(self.pause_s)
        if self.before_step is not None:
            self.before_step()
        self.num_steps += 1
        return super().step()


class LiveServer:
    """Front end on one thread, engine loop on another."""

    def __init__(self, engine: TestEngine, **options: Any) -> None:
        self.engine = engine
        options.setdefault("served_model_names", ("tiny", "alias"))
        max_queued_tokens = options.get("max_num_queued_tokens")
        self.config = ServerConfig(engine.config, port=0, **options)
        self.url = ""
        # One for all: each new one would read the system's certificates.
        self._client = httpx.Client(timeout=60)
        self.front: Frontend
        self.loop: asyncio.AbstractEventLoop
        self._http: HttpListener
        self._ours, theirs = socket.socketpair()
        self._channel = EngineChannel(theirs)
        self._is_up = threading.Event()
        self._engine_thread = threading.Thread(
            target=self._run_engine, args=(max_queued_tokens,), daemon=True
        )
        self._front_thread = threading.Thread(target=self._run_front, daemon=True)

    def __enter__(self) -> LiveServer:
        self._engine_thread.start()
        self._front_thread.start()
        if not self._is_up.wait(60):  # raised, as it has to be waited for under python -O too
            raise TimeoutError("the server did not come up")
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.may_step.set()
        self.engine.pause_s = 0
        self._client.close()
        self._http.should_exit = True
        self._front_thread.join(20)
        self._engine_thread.join(20)
        assert not self._front_thread.is_alive()
        assert not self._engine_thread.is_alive()

    def _run_engine(self, max_queued_tokens: int | None) -> None:
        torch.set_num_threads(1)
        self._channel.receive(wait=True)
        self._channel.send(Ready(describe(self.engine, 0.0)))
        try:
            EngineLoop(self.engine, self._channel, max_queued_tokens).run()
        finally:
            for request_id in list(self.engine._states):
                self.engine.abort(request_id)
            self._channel._socket.close()

    def _run_front(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        metrics = ServerMetrics(self.config.metrics_prefix, "tiny")
        client = EngineClient(metrics, lambda _: None)
        self.front = Frontend(self.config, client, metrics)
        self._http = HttpListener(build_app(self.front), self.config)
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        facts = await client.connect(self._ours, pack_config(self.config.engine))
        tokenizer = self.engine.tokenizer
        template = ChatTemplate({"default": TEMPLATE}, {}, "test")
        self.front.open(facts, tokenizer, template if tokenizer else None)
        self._is_up.set()
        await self._http.serve(sockets=[listener])
        await client.close()
        self.front.close()

    # ---- what tests ask -------------------------------------------------------------------------

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        """POST JSON."""
        return self._client.post(self.url + path, json=body, **options)

    def complete(self, prompt: Any = "once upon", **fields: Any) -> httpx.Response:
        """POST /v1/completions."""
        return self.post("/v1/completions", {"prompt": prompt, **fields})

    def chat(self, text: str = "hi", **fields: Any) -> httpx.Response:
        """POST /v1/chat/completions."""
        messages = [{"role": "user", "content": text}]
        return self.post("/v1/chat/completions", {"messages": messages, **fields})

    def get(self, path: str, **options: Any) -> httpx.Response:
        """GET."""
        return self._client.get(self.url + path, **options)

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a metric's samples with these labels."""
        total = 0.0
        for family in self.front.metrics.registry.collect():
            for sample in family.samples:
                if sample.name == f"{self.config.metrics_prefix}:{name}" and (
                    labels.items() <= sample.labels.items()
                ):
                    total += sample.value
        return total

    def set_status(self, status: ServerStatus) -> None:
        """Pretend that the server is in this state."""
        self.front.status = status

    def connect(self, receive_bytes: int | None = None) -> socket.socket:
        """A raw connection; its receive buffer can be made small."""
        host, port = self.url.removeprefix("http://").split(":")
        connection = socket.socket()
        connection.settimeout(30)
        if receive_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.connect((host, int(port)))
        return connection

    def send_raw(self, path: str, body: Any, receive_bytes: int | None = None) -> socket.socket:
        """POST JSON on a raw connection, and leave it open."""
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        connection = self.connect(receive_bytes)
        connection.sendall(head.encode() + data)
        return connection

    def used_blocks(self) -> int:
        """KV blocks that requests hold now."""
        stats = self.engine.scheduler.stats()
        return stats.num_usable_blocks - stats.num_free_blocks


def wait_until(holds: Callable[[], bool], timeout_s: float = 20) -> None:
    """Poll; fails when the time is over."""
    end_s = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end_s:  # under python -O too
            raise AssertionError("it did not come about")
        time.sleep(0.005)


def make_engine(folder: Path, **options: Any) -> TestEngine:
    """A small engine."""
    given = {"num_blocks": 160, "block_size": 16, "max_num_seqs": 16, "max_queue_len": 32}
    return TestEngine(EngineConfig(folder, **{**given, **options}))


@contextmanager
def served(
    folder: Path, options: dict[str, Any] | None = None, **engine: Any
) -> Iterator[LiveServer]:
    """A server for as long as the block lasts."""
    with LiveServer(make_engine(folder, **engine), **(options or {})) as server:
        yield server


def events(text: str) -> list[Any]:
    """Data of a stream's events; the closing [DONE] is checked and left out."""
    lines = [line for line in text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines), lines
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
