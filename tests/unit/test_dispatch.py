"""Launches from memory are those that would be made in full, whatever the arguments."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from stub_driver import StubDriver, StubLauncher

from autotune.arch import lookup
from autotune.dispatch import RememberingLaunch, remembering_launch
from autotune.render import import_file
from autotune.scratch import Scratch

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


def changed_in_place(x: torch.Tensor) -> Iterator[None]:
    """One tensor object, with another layout at each step."""
    yield
    x.resize_(8, 4)
    yield
    x.t_()
    yield
    x.data = torch.zeros(4, 8)
    yield
    x.data = torch.zeros(4, 8, dtype=torch.float16)
    yield
    x.data = torch.zeros(4, 8, dtype=torch.int16)
    yield
    x.set_(torch.zeros(64), 1, (4, 8), (8, 1))
    yield
    x.set_(torch.zeros(64), 4, (4, 8), (16, 1))
    yield
    x.as_strided_((4, 4), (16, 2))


def test_layouts_that_change_in_place_are_seen(module: Any, launched: Launched) -> None:
    plain = module.launch
    remembering = remembering_launch(module)
    x = torch.zeros(4, 8)
    steps = 0
    for _ in changed_in_place(x):
        for to in (torch.zeros(x.shape), x):  # one object in two places, and two objects
            launched.clear()
            plain(to, x, 1.0)
            for _ in range(3):
                remembering(to, x, 1.0)
            assert facts(launched[1:]) == facts(launched[:1]) * 3
            steps += 1
    assert steps == 16


def test_a_tensor_given_twice_is_not_two_tensors(module: Any, launched: Launched) -> None:
    launch = remembering_launch(module)
    one, other = torch.zeros(16), torch.zeros(16)
    for to, source in [(one, one), (one, one), (other, one), (other, one), (other, other)] * 2:
        launched.clear()
        launch(to, source, 1.0)
        ((_, _, given),) = launched
        assert given[0] is to
        assert given[1] is source


def test_equal_numbers_are_told_apart(module: Any, launched: Launched) -> None:
    launch = remembering_launch(module)
    x = torch.zeros(16)
    numbers = (0.0, -0.0, 1, 1.0, True, -0.0, 0.0, float("nan"), 2, 2.0)
    for number in numbers * 2:
        launched.clear()
        launch(x, x.clone(), number)
        factor = launched[0][2][4]
        assert repr(factor) == repr(2.0 * number)
        assert type(factor) is type(2.0 * number)


def test_more_layouts_than_are_looked_at_first(module: Any, launched: Launched) -> None:
    plain = module.launch
    launch = remembering_launch(module)
    for size in [*range(1, 9), *range(8, 0, -1), 3, 3, 1]:
        to, source = torch.zeros(size), torch.zeros(size)
        launched.clear()
        launch(to, source, 1.0)
        plain(to, source, 1.0)
        assert facts(launched[:1]) == facts(launched[1:])


def scratch_module(folder: Path, maker: str) -> Any:
    """The module, its tensor between two kernels made by `maker`."""
    path = folder / f"copy_through_{len(maker)}.py"
    path.write_text(SOURCE.replace("torch.empty_like(to)", maker))
    return import_file(path)


def test_memory_between_kernels_is_kept_per_stream_and_thread(
    tmp_path: Path, launched: Launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = 7
    monkeypatch.setattr(StubDriver, "get_current_stream", lambda self, device: stream)
    scratch = Scratch()
    module = scratch_module(tmp_path, "torch.empty(to.shape, dtype=to.dtype)")
    launch = remembering_launch(module, scratch)
    to, source = torch.zeros(16), torch.zeros(16)

    def middle(size: int = 16) -> int:
        launched.clear()
        launch(to[:size], source[:size], 1.0, True)
        first, second = (given for _, _, given in launched)
        assert first[0].data_ptr() == second[1].data_ptr()
        assert first[0].data_ptr() % 16 == 0
        assert (first[1].data_ptr(), second[0].data_ptr()) == (source.data_ptr(), to.data_ptr())
        return int(first[0].data_ptr())

    middle()
    kept = middle()
    assert {middle() for _ in range(3)} == {kept}
    middle(8)
    assert middle(8) == kept, "layouts take turns in the same memory"
    stream = 8
    other = middle()
    assert other != kept
    assert middle() == other
    stream = 7
    assert middle() == kept
    elsewhere: list[int] = []
    thread = threading.Thread(target=lambda: elsewhere.append(middle()))
    thread.start()
    thread.join()
    assert elsewhere[0] not in (kept, other)


def test_memory_that_is_filled_is_filled_each_time(tmp_path: Path, launched: Launched) -> None:
    for maker in ("torch.zeros(to.shape, dtype=to.dtype)", "torch.empty(to.shape).fill_(2.0)"):
        module = scratch_module(tmp_path, maker)
        launch = remembering_launch(module)
        middles = []
        for _ in range(3):
            launched.clear()
            launch(torch.zeros(16), torch.zeros(16), 1.0, True)
            middles.append(launched[0][2][0])
        assert len({id(middle) for middle in middles}) == 3
        assert len({float(middle.sum()) for middle in middles}) == 1


def test_launches_in_a_graph_take_memory_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scratch, "_make", lambda self, device, size: torch.empty(size))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    scratch, gpu = Scratch(), torch.device("cuda:0")
    (kept,) = scratch.parts(gpu, 7, (64,))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    captured = [scratch.parts(gpu, 7, (64,))[0] for _ in range(3)]
    assert len({part.data_ptr() for part in (kept, *captured)}) == 4
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert scratch.parts(gpu, 7, (64,))[0] is kept


def test_scratch_parts_lie_apart() -> None:
    scratch = Scratch()
    cpu = torch.device("cpu")
    for sizes in ((4, 1000, 0, 513), (1,), (5000, 5000), (4, 1000, 0, 513)):
        parts = scratch.parts(cpu, 1, sizes)
        assert tuple(part.numel() for part in parts) == sizes
        spans = sorted((p.data_ptr(), p.data_ptr() + p.numel()) for p in parts if p.numel())
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))
        assert all(part.data_ptr() % 16 == 0 for part in parts)


def test_bytes_seen_as_another_type_are_the_caller_s(tmp_path: Path, launched: Launched) -> None:
    path = tmp_path / "copy_bytes.py"
    body = SOURCE.replace(
        "copy[grid](middle, source,", "copy[grid](middle, source.view(torch.int32),"
    )
    path.write_text(body)
    module = import_file(path)
    launch = remembering_launch(module)
    launch(torch.zeros(16), torch.zeros(16), 1.0)
    for _ in range(3):
        launched.clear()
        to, source = torch.zeros(16), torch.zeros(16)
        launch(to, source, 1.0)
        module.copy = None  # from memory from now on
        ((_, _, given),) = launched
        assert given[1].data_ptr() == source.data_ptr()


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
