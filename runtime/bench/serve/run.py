"""One run: plan, warm up, send by the clock, gather; what was done counts if it is interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from runtime.bench.serve.client import LoadClient
from runtime.bench.serve.outcome import Outcome
from runtime.bench.serve.prompts import Planned, TextCoder, plan_requests
from runtime.bench.serve.settings import LoadSettings
from runtime.errors import BenchmarkError
from runtime.tokenizer import Tokenizer

Tick = Callable[[int, int], None]
"""Hears how many of how many requests have ended."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a run gave."""

    model: str
    outcomes: tuple[Outcome, ...]
    """Of the requests that have ended, in the order they were planned in."""
    duration_s: float
    num_interrupted: int
    """Requests that Ctrl-C cut off, or kept from being sent."""


class LocalCoder:
    """A tokenizer of a folder, in the place of the server's."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    async def encode(self, text: str) -> list[int]:
        """Token ids, special ones left out."""
        return self._tokenizer.encode(text, add_special_tokens=False)

    async def decode(self, token_ids: Sequence[int]) -> str:
        """Text."""
        return self._tokenizer.decode(token_ids, skip_special_tokens=False)


def start_times(count: int, rate: float | None, burstiness: float, seed: int) -> list[float]:
    """Seconds after the start at which requests are due.

    Gaps are gamma distributed with shape `burstiness` (1: a Poisson process), and stretched so that
    the last is due at count / rate, as in `vllm bench serve`.
    """
    if rate is None:
        return [0.0] * count
    source = random.Random(seed)
    times, now_s = [], 0.0
    for _ in range(count):
        now_s += source.gammavariate(burstiness, 1 / (rate * burstiness))
        times.append(now_s)
    stretch = count / rate / now_s
    return [time_s * stretch for time_s in times]


async def run_load(settings: LoadSettings, say: Callable[[str], None], tick: Tick) -> Load:
    """Put a server under load.

    Args:
        settings: how.
        say: takes lines for the operator.
        tick: takes the progress.

    Raises:
        BenchmarkError: the server does not answer, or refuses the requests before the clock runs.
        InvalidParameterError: the data set cannot be used.
    """
    client = LoadClient(settings)
    try:
        if settings.ready_timeout_s:
            await client.wait_ready(settings.ready_timeout_s)
        client.model = settings.model or await client.first_model()
        coder: TextCoder = client
        if settings.tokenizer is not None:
            coder = LocalCoder(Tokenizer.load(settings.tokenizer))
        planned = await plan_requests(settings.dataset, coder, as_text=settings.is_chat)
        if settings.num_warmups:
            say(f"warming up with {settings.num_warmups} requests")
            await _warm_up(client, planned[0], settings)
        say(f"{len(planned)} requests to {settings.base_url}{settings.endpoint}")
        return await _measure(client, planned, settings, tick)
    finally:
        await client.close()


async def _warm_up(client: LoadClient, first: Planned, settings: LoadSettings) -> None:
    gate = _gate(settings)

    async def one() -> Outcome:
        async with gate:
            return await client.send(first)

    for outcome in await asyncio.gather(*(one() for _ in range(settings.num_warmups))):
        if outcome.error is not None:
            raise BenchmarkError(f"a request of the warm-up failed: {outcome.error}")


async def _measure(
    client: LoadClient, planned: Sequence[Planned], settings: LoadSettings, tick: Tick
) -> Load:
    gate = _gate(settings)
    done: dict[int, Outcome] = {}
    due_s = start_times(
        len(planned), settings.request_rate, settings.burstiness, settings.dataset.seed
    )
    begin_s = time.perf_counter()

    async def one(index: int) -> None:
        await asyncio.sleep(begin_s + due_s[index] - time.perf_counter())
        arrived_s = time.perf_counter()
        async with gate:
            queue_s = time.perf_counter() - arrived_s
            done[index] = await client.send(planned[index], queue_s)
        tick(len(done), len(planned))

    tasks = [asyncio.create_task(one(index)) for index in range(len(planned))]
    with _on_interrupt(lambda: [task.cancel() for task in tasks]):
        endings = await asyncio.gather(*tasks, return_exceptions=True)
    for ending in endings:
        if isinstance(ending, Exception):
            raise ending
    duration_s = time.perf_counter() - begin_s
    outcomes = tuple(done[index] for index in sorted(done))
    return Load(client.model, outcomes, duration_s, len(planned) - len(outcomes))


def _gate(settings: LoadSettings) -> asyncio.Semaphore:
    dataset = settings.dataset
    return asyncio.Semaphore(
        settings.max_concurrency or max(dataset.num_prompts, settings.num_warmups)
    )


@contextlib.contextmanager
def _on_interrupt(act: Callable[[], object]) -> Iterator[None]:
    """Answer the first Ctrl-C here; a second one ends the process as usual."""
    loop = asyncio.get_running_loop()

    def first() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        act()

    loop.add_signal_handler(signal.SIGINT, first)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
