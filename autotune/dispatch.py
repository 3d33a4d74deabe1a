"""Launches that were made before, made again without asking what was asked before.

Each launch of a rendered kernel checks shapes, works out grids and strides, and has Triton search
for the binary: tens of microseconds of Python. All of it depends on layouts alone, so a launch with
the layouts of an earlier one starts the same binaries over the same grids.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, update_wrapper
from types import ModuleType
from typing import Any

_MOST_KEPT = 4096
"""Layouts; beyond that all are forgotten, as the sizes of prompts are without end."""

Call = tuple[Any, tuple[int, ...], tuple[Any, ...]]
"""Compiled kernel, grid, arguments."""


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

    The layout of a call: device, and every argument's shape, strides, dtype and whether its address
    is a multiple of 16, or its value if it is a number. Grids, strides and Triton's choice of the
    binary follow from those on NVIDIA's GPUs. Elsewhere, where sizes of storage count, too, and
    where a launch makes tensors of its own, every call is made in full.
    """

    def __init__(self, launch: Callable[..., None], calls: list[Call]) -> None:
        """Wrap `launch`, which notes what it starts in `calls`."""
        import torch
        from triton import knobs
        from triton.runtime import driver

        update_wrapper(self, launch)  # `inspect` finds the rendered file
        self._hooks = knobs.runtime
        self._launch = launch
        self._calls = calls
        self._known: dict[tuple[object, ...], tuple[_Step, ...] | None] = {}
        self._tensor = torch.Tensor
        self._driver = driver

    def __call__(self, *arguments: Any, **named: Any) -> None:
        """Launch on these arguments."""
        driver, tensor = self._driver.active, self._tensor
        device = driver.get_current_device()
        layout: list[object] = [device]
        values = arguments
        if named:
            values = (*arguments, *named.values())
            layout += named
        for value in values:
            if isinstance(value, tensor):
                layout += (value.shape, value.stride(), value.dtype, value.data_ptr() & 15 == 0)
            else:
                layout += (type(value), value)
        key = tuple(layout)
        steps = self._known.get(key)
        if steps is not None:
            hooks = self._hooks
            enter, leave = hooks.launch_enter_hook, hooks.launch_exit_hook
            if (enter is not None and enter.calls) or (leave is not None and leave.calls):
                for step in steps:  # a profiler has asked to be told
                    step.run_watched(values)
                return
            stream = driver.get_current_stream(device)
            for step in steps:
                step.run(values, stream)
        elif key in self._known:
            self._launch(*arguments, **named)
            self._calls.clear()
        else:
            # Aliases, all objects of their own: a tensor that is given twice, as input and output,
            # must be told apart by where it is given.
            aliases = [v.detach() if isinstance(v, tensor) else v for v in values]
            self._calls.clear()
            given = aliases[: len(arguments)]
            self._launch(*given, **dict(zip(named, aliases[len(arguments) :], strict=True)))
            self._remember(key, aliases)

    def _remember(self, key: tuple[object, ...], values: list[Any]) -> None:
        steps = [_Step.of(call, values) for call in self._calls]
        self._calls.clear()
        if len(self._known) >= _MOST_KEPT:
            self._known.clear()
        whole = tuple(step for step in steps if step is not None)
        self._known[key] = whole if len(whole) == len(steps) else None


class _Step:
    """One compiled kernel with its grid, and which of a call's values are its arguments."""

    __slots__ = ("_arguments", "_binary", "_function", "_grid", "_metadata", "_places", "_run")

    def __init__(
        self, binary: Any, grid: tuple[int, ...], arguments: list[Any], places: list[Any]
    ) -> None:
        self._binary = binary
        # Behind properties, and fixed since the first launch.
        self._run = binary.run
        self._function = binary.function
        self._metadata = binary.packed_metadata
        self._grid = grid
        self._arguments = arguments
        self._places = places
        """(place among the arguments, place among the values) of each tensor."""

    @classmethod
    def of(cls, call: Call, values: list[Any]) -> _Step | None:
        """What repeats a call; None where its tensors are not the caller's, or not on NVIDIA's."""
        compiled, grid, arguments = call
        if compiled.metadata.target.backend != "cuda":
            return None
        kept: list[Any] = list(arguments)
        places = []
        for place, argument in enumerate(arguments):
            if not isinstance(argument, int | float):
                source = next((n for n, value in enumerate(values) if value is argument), None)
                if source is None:
                    return None
                places.append((place, source))
                kept[place] = None  # holds on to no memory
        return cls(compiled, (*grid, 1, 1)[:3], kept, places)

    def run(self, values: tuple[Any, ...], stream: int) -> None:
        """Start the kernel on these values, as Triton's `jit` function does; nobody watches."""
        arguments = self._arguments.copy()
        for place, source in self._places:
            arguments[place] = values[source]
        x, y, z = self._grid
        self._run(x, y, z, stream, self._function, self._metadata, None, None, None, *arguments)

    def run_watched(self, values: tuple[Any, ...]) -> None:
        """Start it with hooks and what they are told."""
        arguments = self._arguments.copy()
        for place, source in self._places:
            arguments[place] = values[source]
        self._binary[self._grid](*arguments)


def remembering_launch(module: ModuleType) -> Callable[..., None]:
    """A rendered module's `launch`, remembering; as it is where kernels are interpreted."""
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
    return RememberingLaunch(launch, calls)
