"""The language of Triton's interpreter: bound once per launch, and undone."""

from __future__ import annotations

import types
from collections.abc import Callable

import pytest

from autotune.interpreted import BindOncePerLaunch


class Bindings:
    """Counts what Triton would bind and undo."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def bind(self, fn: Callable[[], None]) -> Bindings:
        self.events.append(fn.__globals__["name"])
        return self

    def restore(self) -> None:
        self.events.append("undone")


def function(name: str) -> Callable[[], None]:
    """A function of a module of its own."""
    return types.FunctionType((lambda: None).__code__, {"name": name})


def test_each_module_is_bound_once_in_every_launch() -> None:
    seen = Bindings()
    bind = BindOncePerLaunch(seen.bind)
    kernel, standard = function("kernel"), function("standard")
    for _ in range(2):
        launch = bind(kernel)
        for _ in range(3):
            bind(kernel)
            bind(standard)
        launch.restore()
    assert seen.events == ["kernel", "standard", "undone"] * 2


def test_a_launch_that_could_not_begin_has_nothing_to_undo() -> None:
    def refuse(fn: Callable[[], None]) -> Bindings:
        raise AssertionError("triton.language must be visible")

    bind = BindOncePerLaunch(refuse)
    with pytest.raises(AssertionError, match="visible"):
        bind(function("kernel"))
    with pytest.raises(AssertionError, match="no launch"):
        bind.restore()
