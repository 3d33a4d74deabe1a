"""A simulated GPU behind a real worker process: winners, faults, raw samples, recorded spaces."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from autotune.arch import lookup
from autotune.cell import Cell
from autotune.config import Config
from autotune.errors import UnknownChoiceError, UsageError
from autotune.gpu import Gpu, simulated
from autotune.kernels import load_kernel
from autotune.paths import templates_dir
from autotune.race_log import RaceLog
from autotune.records import Status
from autotune.render import TemplateFolder
from autotune.simulated import PREFIX, Fate, SimulatedDevice

KERNEL = "fused_mlp"
H200 = lookup("h200")
BAD = PREFIX + "h200?wrong=0.3&hang=0.2&crash=0.2&hot=0.1"
SHORT_S = 2.0
"""For what never ends; the start of a worker is not counted."""


@pytest.fixture(scope="module")
def cell() -> Cell:
    spec = load_kernel(KERNEL)
    return Cell(spec, H200, spec.problem_type.parse("n=1024,k=1024"))


class Bench:
    """A simulated GPU and its log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "races.jsonl"
        self.gpus: list[Gpu] = []

    def gpu(self, traits: str, timeout_s: float = 60.0) -> Gpu:
        templates = TemplateFolder(templates_dir())
        found = simulated(traits, templates, self.folder, RaceLog(self.log), timeout_s)
        self.gpus.append(found)
        return found

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    found = Bench(tmp_path)
    yield found
    for gpu in found.gpus:
        gpu.__exit__(None, None, None)


def of_fate(cell: Cell, device: SimulatedDevice, fate: Fate, count: int) -> list[Config]:
    found = [c for c in cell.space.legal if device.fate(KERNEL, c) is fate][:count]
    assert len(found) == count
    return found


def true_us(cell: Cell, device: SimulatedDevice, configs: Sequence[Config]) -> list[float]:
    return [device.true_us(cell.spec, cell.points[0], config) for config in configs]


def test_the_truly_fastest_wins_and_every_sample_is_kept(cell: Cell, bench: Bench) -> None:
    device = SimulatedDevice.parse("h200")
    configs = list(cell.space.legal[:: len(cell.space.legal) // 6])
    gpu = bench.gpu("h200?hot=0.3")
    found = gpu.race(cell, cell.points[0], configs, peers=["fused_mlp/cublas"])
    assert found.faults == (None,) * (len(configs) + 1)
    medians = [found.timing(n).median_us for n in range(len(configs))]
    true = true_us(cell, device, configs)
    assert medians.index(min(medians)) == true.index(min(true))
    assert medians == pytest.approx(true, rel=0.1), "heat would have added 40 %"
    assert found.discarded_us
    (entry,) = bench.entries()
    assert entry["samples_us"] == [list(samples) for samples in found.samples_us]
    assert entry["discarded_us"] == [list(row) for row in found.discarded_us]
    assert len(entry["clocks"]) == len(found.samples_us[0]) + len(found.discarded_us)
    assert entry["configs"] == [dict(config) for config in configs]
    assert entry["policy"]["mode"] == found.mode.value == "graph"


def test_a_hang_and_a_crash_cost_themselves_only(cell: Cell, bench: Bench) -> None:
    device = SimulatedDevice.parse(BAD)
    sound = of_fate(cell, device, Fate.SOUND, 2)
    (hang,) = of_fate(cell, device, Fate.HANG, 1)
    (crash,) = of_fate(cell, device, Fate.CRASH, 1)
    gpu = bench.gpu(BAD, SHORT_S)
    found = gpu.race(cell, cell.points[0], [sound[0], hang, crash, sound[1]])
    assert [fault is None for fault in found.faults] == [True, False, False, True]
    assert found.samples_us[0]
    assert not found.samples_us[1]
    medians = [found.timing(n).median_us for n in (0, 3)]
    assert medians == pytest.approx(true_us(cell, device, sound), rel=0.1)


def test_a_check_tells_wrong_from_hung_from_crashed(cell: Cell, bench: Bench) -> None:
    device = SimulatedDevice.parse(BAD)
    gpu = bench.gpu(BAD, SHORT_S)
    told = {
        fate: gpu.wrong(cell, of_fate(cell, device, fate, 1)[0])
        for fate in (Fate.SOUND, Fate.WRONG, Fate.HANG, Fate.CRASH)
    }
    assert told[Fate.SOUND] is None
    assert "relative" in str(told[Fate.WRONG])
    assert str(told[Fate.HANG]).startswith("timed_out")
    assert str(told[Fate.CRASH]).startswith("crashed")
    assert [entry["reason"] for entry in bench.entries()] == list(told.values())


def test_a_sweep_gives_each_configuration_its_own_end(cell: Cell, bench: Bench) -> None:
    traits = PREFIX + "h200?wrong=0.2&crash=0.1"
    device = SimulatedDevice.parse(traits)
    wanted = {Fate.SOUND: 3, Fate.WRONG: 2, Fate.CRASH: 1}
    configs = [c for fate, count in wanted.items() for c in of_fate(cell, device, fate, count)]
    swept = bench.gpu(traits).sweep(cell, cell.points[0], configs)
    assert [s.status for s in swept] == [
        *[Status.OK] * 3, *[Status.WRONG_RESULT] * 2, Status.CRASHED,
    ]  # fmt: skip
    for outcome in swept:
        assert bool(outcome.samples_us) == (outcome.status is Status.OK)
        assert (outcome.reason is None) == (outcome.status is Status.OK)


def test_a_simulated_gpu_never_bears_a_real_name(bench: Bench) -> None:
    from autotune.records import Environment

    told = bench.gpu("h200").describe(Environment("3", "ptxas 1"))
    assert str(told.device).startswith("simulated")


def test_unknown_traits_are_refused() -> None:
    with pytest.raises(UnknownChoiceError, match="noise"):
        SimulatedDevice.parse("h200?nose=1")
    with pytest.raises(UsageError, match="no number"):
        SimulatedDevice.parse("h200?noise=much")
    with pytest.raises(UnknownChoiceError, match="h200"):
        SimulatedDevice.parse("h2oo")
