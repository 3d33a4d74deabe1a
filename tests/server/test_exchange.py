"""What one reader gets of a group of requests, whatever came before it looked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from runtime.server.exchange import EngineFailedError, Exchange
from runtime.server.messages import Advance, Delta


def read(exchange: Exchange) -> list[str]:
    """Texts until the end; every prompt has been admitted."""

    async def texts() -> list[str]:
        async for _, advance in exchange.advances():
            seen.extend(delta.text for delta in advance.deltas)
        return seen

    seen: list[str] = []
    return asyncio.run(texts())


def started(names: Sequence[str], aborted: list[list[str]] | None = None) -> Exchange:
    exchange = Exchange(names, (aborted if aborted is not None else []).append)
    for name in names:
        exchange.take_admission(name)
    return exchange


def gained(name: str, text: str, finished: bool = False) -> Advance:
    return Advance(name, [Delta(0, text, 1, None, "stop" if finished else None, None)], finished, 0)


def test_all_is_read_however_late() -> None:
    exchange = started(("a",))
    exchange.take_advance(gained("a", "one "))
    exchange.take_advance(gained("a", "two", finished=True))
    assert read(exchange) == ["one two"]


def test_a_failure_before_the_first_look_is_not_an_empty_answer() -> None:
    exchange = started(("a",))
    exchange.fail(EngineFailedError("not a number"), "a")
    with pytest.raises(EngineFailedError, match="not a number"):
        read(exchange)


def test_what_came_before_a_failure_does_not_hide_it() -> None:
    exchange = started(("a",))
    exchange.take_advance(gained("a", "one"))
    exchange.fail(EngineFailedError("not a number"), "a")
    with pytest.raises(EngineFailedError):
        read(exchange)


def test_closing_after_a_failure_aborts_the_others_only() -> None:
    aborted: list[list[str]] = []
    exchange = started(("a", "b"), aborted)
    exchange.fail(EngineFailedError("not a number"), "a")
    exchange.close()
    exchange.close()
    assert aborted == [["b"]]
