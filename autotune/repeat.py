"""One layout of a launch, made again: is a call of that layout, and which kernels does it start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import itemgetter, or_
from typing import TYPE_CHECKING, Any

from autotune.scratch import Scratch

if TYPE_CHECKING:
    from autotune.host_work import HostWork

Call = tuple[Any, tuple[int, ...], tuple[Any, ...]]
"""Compiled kernel, grid, arguments."""

Fits = Callable[[tuple[Any, ...], int], bool]
"""Whether a call's values, on a device, have the layout."""

Run = Callable[[tuple[Any, ...], int], None]
"""Starts the layout's kernels on a call's values."""


def make_run(
    driver: Any, values: tuple[Any, ...], calls: Sequence[Call], work: HostWork, scratch: Scratch
) -> Run | None:
    """Return what starts again, on other values, the kernels that `values` started.

    Args:
        driver: Triton's.
        values: of the call.
        calls: kernels that it started.
        work: all else that it did.
        scratch: memory for what it took.

    Returns:
        None where that would not do the same: other work, tensors from elsewhere, not NVIDIA's GPU.
    """
    from triton import knobs

    devices = {tensor.device for tensor in work.taken}
    if not work.is_repeatable or len(devices) > 1:
        return None
    sizes = tuple(tensor.untyped_storage().nbytes() for tensor in work.taken)
    constants = [a for *_, given in calls for a in given if isinstance(a, int | float)]
    pool = [*values, *constants, *work.taken]  # what the arguments of all kernels are picked from
    watched, steps = [], []
    next_constant = len(values)
    for compiled, grid, arguments in calls:
        if compiled.metadata.target.backend != "cuda":
            return None
        places = []
        for argument in arguments:
            if isinstance(argument, int | float):
                places.append(next_constant)
                next_constant += 1
                continue
            source = work.source(argument)
            place = next((n for n, known in enumerate(pool) if known is source), None)
            if place is None:
                return None
            places.append(place)
        pick = _picker(places)
        x, y, z = (*grid, 1, 1)[:3]
        watched.append((compiled, (x, y, z), pick))
        # Behind properties, and fixed since the first launch.
        facts = (compiled.run, compiled.function, compiled.packed_metadata)
        steps.append((*facts, x, y, z, pick))
    fixed = tuple(constants)
    taken_on = devices.pop() if devices else None
    hooks = knobs.runtime

    def run(values: tuple[Any, ...], device: int) -> None:
        stream = driver.active.get_current_stream(device)
        pool = values + fixed
        if taken_on is not None:
            pool += scratch.parts(taken_on, stream, sizes)
        enter, leave = hooks.launch_enter_hook, hooks.launch_exit_hook
        if (enter is not None and enter.calls) or (leave is not None and leave.calls):
            for compiled, grid, pick in watched:  # a profiler has asked to be told
                compiled[grid](*pick(pool))
            return
        for start, function, metadata, x, y, z, pick in steps:  # as Triton's `jit` function does
            start(x, y, z, stream, function, metadata, None, None, None, *pick(pool))

    return run


def make_fits(values: tuple[Any, ...], device: int) -> Fits | None:
    """Return the test whether a call has the layout of `values`, on that device.

    Shapes, strides, types and devices are compared by the guards that PyTorch's compiler puts
    before its code: one call for all tensors, an eighth of the time that reading them takes.

    Returns:
        None where an address is no multiple of 16: rare, and left to the slower way.
    """
    import torch
    from torch._C._dynamo.guards import TensorGuards

    tensor, data_ptr = torch.Tensor, torch.Tensor.data_ptr
    first: dict[int, int] = {}
    twins, numbers = [], []
    for place, value in enumerate(values):
        if not isinstance(value, tensor):
            numbers.append((place, type(value), value))
        elif first.setdefault(id(value), place) != place:
            twins.append((place, first[id(value)]))
    known = [values[place] for place in first.values()]
    if any(x.data_ptr() & 15 for x in known):
        return None
    # Tensors that are one object are not the guards' matter: they take each for another.
    guards = TensorGuards(*known, dynamic_dims_sizes=None, dynamic_dims_strides=None)
    check, count = guards.check, len(values)
    pick = _picker(list(first.values())) if len(known) < count else tuple

    def fits(values: tuple[Any, ...], on: int) -> bool:
        if on != device or len(values) != count:
            return False
        for place, kind, known in numbers:
            value = values[place]
            # -0.0 is 0.0 here, and 1 is 1.0: the former is left to the slower way.
            if value is not known and (type(value) is not kind or not value or value != known):
                return False
        for place, twin in twins:
            if values[place] is not values[twin]:
                return False
        tensors = pick(values)
        return check(*tensors) and not reduce(or_, map(data_ptr, tensors), 0) & 15

    return fits


def _picker(places: list[int]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """`itemgetter`, but a tuple for any number of places."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: tuple(values[place] for place in places)
