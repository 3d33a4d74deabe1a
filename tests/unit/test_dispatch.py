"""Launches from memory are those that would be made in full, whatever the arguments."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from stub_driver import StubDriver, StubLauncher

from autotune.arch import lookup
from autotune.dispatch import RememberingLaunch, remembering_launch
from autotune.render import import_file

SOURCE = """import torch
import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rows"])
def copy(to_ptr, from_ptr, rows, stride, factor):
    offsets = tl.program_id(0) * stride + tl.arange(0, 16)
    tl.store(to_ptr + offsets, tl.load(from_ptr + offsets) * factor, mask=offsets < rows)


ENTRY_POINTS = {"copy": {}}


def launch(to, source, factor, through=False):
    if to.shape != source.shape:
        raise ValueError("shapes differ")
    middle = torch.empty_like(to) if through else to
    grid = (3, source.shape[0])[: 1 + source.shape[0] % 2]
    copy[grid](middle, source, to.shape[0], source.stride(0), 2.0 * factor, num_warps=1)
    if through:
        copy[grid](to, middle, to.shape[0], source.stride(0), 1.0, num_warps=1)
"""


class NotingLauncher(StubLauncher):
    """Notes what is launched: binary, grid, arguments."""

    launched: list[tuple[str, tuple[Any, ...], tuple[Any, ...]]]

    def __init__(self, source: Any, metadata: Any) -> None:
        super().__init__(source, metadata)
        self.hash = metadata.hash

    def __call__(self, *arguments: Any) -> None:
        self.launched.append((self.hash, arguments[:3], arguments[9:]))


Launched = list[tuple[str, tuple[Any, ...], tuple[Any, ...]]]


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Launched:
    """Launches on a device that is not there, in order."""
    NotingLauncher.launched = []
    monkeypatch.setattr(StubDriver, "launcher_cls", NotingLauncher)
    monkeypatch.setattr(triton.runtime.driver, "_active", StubDriver(lookup("a100")))
    return NotingLauncher.launched


@pytest.fixture
def module(tmp_path: Path) -> Any:
    path = tmp_path / "copy_kernel.py"
    path.write_text(SOURCE)
    return import_file(path)


def facts(launched: Launched) -> list[object]:
    """Tensors by place, layout and type, numbers by value and type."""
    return [
        (
            binary,
            grid,
            [(type(x), x) if not isinstance(x, torch.Tensor) else place(x) for x in given],
        )
        for binary, grid, given in launched
    ]


def place(x: torch.Tensor) -> tuple[object, ...]:
    return x.data_ptr(), x.shape, x.stride(), x.dtype


def test_what_is_launched_is_what_triton_would(module: Any, launched: Launched) -> None:
    plain = module.launch
    flat = torch.zeros(200)
    assert flat.data_ptr() % 16 == 0
    views = [
        *(flat[:16], flat[1:17], flat[:17], flat[:32:2], flat[:1], flat[:160:10], flat[4:20]),
        *(flat.half()[:16], flat.half()[3:19], flat.double()[:16], flat[:48:3], flat[:16].clone()),
    ]
    cases = [
        (to, source, factor)
        for to, source in itertools.product(views, views)
        if to.shape == source.shape
        for factor in (0.5, 1.0, 1)
    ]
    for case in cases:
        plain(*case)
    wanted = list(launched)
    remembering = remembering_launch(module)
    for _ in range(2):  # the second time from memory
        launched.clear()
        for case in cases:
            remembering(*case)
        assert facts(launched) == facts(wanted)
    assert len({binary for binary, _, _ in wanted}) > 8, "there is something to tell apart"
    launched.clear()
    for to, source, factor in cases:
        remembering(to, factor=factor, source=source)
    assert facts(launched) == facts(wanted)


def test_repeated_launches_run_no_host_code(module: Any, launched: Launched) -> None:
    launch = remembering_launch(module)
    flat = torch.zeros(64)
    launch(flat[:32], flat[32:], 1.0)
    module.copy = None  # what the host function would call
    launch(flat[32:], flat[:32], 1.0)
    assert len(launched) == 2
    assert launched[1][2][0].data_ptr() == flat[32:].data_ptr()
    with pytest.raises(TypeError):
        launch(flat[:32], flat[32:], 2.0)


def test_profilers_are_told(
    module: Any, launched: Launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = remembering_launch(module)
    to, source = torch.zeros(16), torch.zeros(16)
    given: list[tuple[Any, ...]] = []
    launch(to, source, 1.0)
    monkeypatch.setattr(NotingLauncher, "__call__", lambda self, *all_: given.append(all_[6:9]))
    launch(to, source, 1.0)
    told = given.append
    hook = triton.knobs.runtime.launch_enter_hook
    hook.add(told)
    try:
        launch(to, source, 1.0)
    finally:
        hook.remove(told)
    launch(to, source, 1.0)
    assert given[0] == given[2] == (None, None, None)
    metadata, enter, _ = given[1]
    assert enter is hook
    assert metadata.get()["name"] == "copy"


def test_tensors_of_its_own_are_made_each_time(module: Any, launched: Launched) -> None:
    launch = remembering_launch(module)
    to, source = torch.zeros(16), torch.zeros(16)
    for _ in range(3):
        launch(to, source, 1.0, through=True)
    middles = [arguments[0] for _, _, arguments in launched[::2]]
    assert len({id(middle) for middle in middles}) == 3
    assert all(a[2][1] is m for a, m in zip(launched[1::2], middles, strict=True))


def test_wrong_arguments_are_refused_every_time(module: Any, launched: Launched) -> None:
    launch = remembering_launch(module)
    for _ in range(2):
        with pytest.raises(ValueError, match="shapes differ"):
            launch(torch.zeros(3), torch.zeros(4), 1.0)
    assert not launched


def test_elsewhere_than_on_nvidia_every_launch_is_made_in_full() -> None:
    class Compiled:
        class metadata:  # noqa: N801 - as Triton's
            class target:  # noqa: N801
                backend = "hip"

    asked: list[Any] = []

    def launch(x: torch.Tensor) -> None:
        asked.append(x)
        calls.append((Compiled, (1,), (x,)))

    calls: list[Any] = []
    remembering = RememberingLaunch(launch, calls)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton.runtime.driver, "_active", StubDriver(lookup("a100")))
        x = torch.zeros(4)
        for _ in range(3):
            remembering(x)
    assert len(asked) == 3
    assert not calls
