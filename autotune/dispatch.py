"""Launches that were made before, made again without asking what was asked before.

Each launch of a rendered kernel checks shapes, works out grids and strides, and has Triton search
for the binary: tens of microseconds of Python. All of it depends on layouts alone, so a launch with
the layouts of an earlier one starts the same binaries over the same grids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial, update_wrapper
from types import ModuleType
from typing import Any

from autotune.repeat import Call, Fits, Run, make_fits, make_run
from autotune.scratch import Scratch

_MOST_KEPT = 4096
"""Layouts; beyond that all are forgotten, as the sizes of prompts are without end."""

_MOST_RECENT = 4
"""Layouts that a call is compared with before its own is worked out."""

_Known = tuple[Fits | None, Run]


class Entry:
    """Stands in for an entry point, `entry[grid](*arguments, **options)`, and notes its calls."""

    __slots__ = ("_calls", "_function")

    def __init__(self, function: Any, calls: list[Call]) -> None:
        """Wrap a function that `triton.jit` made; notes go to `calls`."""
        self._function = function
        self._calls = calls

    def __getitem__(self, grid: tuple[int, ...]) -> partial[None]:
        """A launch over a grid of up to three dimensions."""
        return partial(self._launch, grid)

    def _launch(self, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
        compiled = self._function[grid](*arguments, **options)
        self._calls.append((compiled, grid, arguments))


class RememberingLaunch:
    """A rendered module's `launch` that repeats itself where layouts repeat.

    The layout of a call: devices, which tensors are one object, every tensor's shape, strides,
    dtype and whether its address is a multiple of 16, and every number's value. Grids, strides and
    Triton's choice of the binary follow from those on NVIDIA's GPUs. Elsewhere, where sizes of
    storage count, too, and where a launch does more than start kernels and take memory for them
    to share, every call is made in full.
    """

    def __init__(
        self, launch: Callable[..., None], calls: list[Call], scratch: Scratch | None = None
    ) -> None:
        """Wrap `launch`, which notes what it starts in `calls`; others may use `scratch`, too."""
        import torch
        from triton.runtime import driver

        update_wrapper(self, launch)  # `inspect` finds the rendered file
        self._launch = launch
        self._calls = calls
        self._scratch = Scratch() if scratch is None else scratch
        self._known: dict[tuple[object, ...], _Known | None] = {}
        """None where such a call is made in full."""
        self._recent: tuple[tuple[Fits, Run], ...] = ()
        """Latest first: layers of a step mostly repeat each other."""
        self._tensor = torch.Tensor
        self._driver = driver

    def __call__(self, *arguments: Any, **named: Any) -> None:
        """Launch on these arguments; quickest if all are given by place."""
        device = self._driver.active.get_current_device()
        if not named:
            for fits, run in self._recent:
                if fits(arguments, device):
                    run(arguments, device)
                    return
        values = (*arguments, *named.values())
        key = self._layout(values, named, device)
        known = self._known.get(key)
        if known is not None:
            fits_now, run = known
            if fits_now is not None and not named:
                others = [pair for pair in self._recent if pair[1] is not run]
                self._recent = ((fits_now, run), *others[: _MOST_RECENT - 1])
            run(values, device)
        elif key in self._known:
            self._launch(*arguments, **named)
            self._calls.clear()
        else:
            self._first(key, arguments, named, device)

    def _layout(
        self, values: tuple[Any, ...], names: Iterable[str], device: int
    ) -> tuple[object, ...]:
        layout: list[object] = [device, *names]
        tensor = self._tensor
        first: dict[int, int] = {}
        for place, value in enumerate(values):
            if isinstance(value, tensor):
                aligned = value.data_ptr() & 15 == 0
                layout += (value.shape, value.stride(), value.dtype, value.device, aligned)
                layout.append(first.setdefault(id(value), place))
            elif isinstance(value, float):
                layout += (type(value), value.hex())  # 0.0 equals -0.0
            else:
                layout += (type(value), value)
        return tuple(layout)

    def _first(
        self,
        key: tuple[object, ...],
        arguments: tuple[Any, ...],
        named: dict[str, Any],
        device: int,
    ) -> None:
        from autotune.host_work import HostWork

        self._calls.clear()
        with HostWork() as work:
            self._launch(*arguments, **named)
        values = (*arguments, *named.values())
        run = make_run(self._driver, values, self._calls, work, self._scratch)
        self._calls.clear()
        if len(self._known) >= _MOST_KEPT:
            self._known.clear()
        self._known[key] = None if run is None else (make_fits(values, device), run)


def remembering_launch(module: ModuleType, scratch: Scratch | None = None) -> Callable[..., None]:
    """A rendered module's `launch`, remembering; as it is where kernels are interpreted.

    Launches that are given one `scratch` share its memory.
    """
    from triton.runtime.jit import JITFunction

    launch: Callable[..., None] = module.launch
    if getattr(module, "FILLS_OUTPUT", False):
        return launch  # what it does before it starts a kernel would not be repeated
    functions = {entry: getattr(module, entry) for entry in module.ENTRY_POINTS}
    if not all(isinstance(function, JITFunction) for function in functions.values()):
        return launch
    calls: list[Call] = []
    for entry, function in functions.items():
        setattr(module, entry, Entry(function, calls))
    return RememberingLaunch(launch, calls, scratch)
