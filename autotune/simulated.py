"""A GPU that is not there: times out of the cost model, with what real ones do to them.

For rehearsals and tests of everything around a measurement. The worker process is a real one: a
simulated hang sleeps in it, a simulated crash ends it. A device is named like
`simulated:h200?noise=0.01&wrong=0.1&seed=3`. A hidden factor per configuration, drawn from its
text, keeps the model from being right about its own device; a share of configurations hangs,
crashes or is wrong, and which ones is a matter of their text, too. Nothing here is a measurement.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self
from urllib.parse import parse_qsl

from autotune.arch import GpuArch, lookup
from autotune.clocks import SW_THERMAL, ClockReading
from autotune.config import Config
from autotune.errors import UnknownChoiceError, UsageError
from autotune.kernels import load_kernel
from autotune.kernels.spec import KernelSpec
from autotune.library import PREFIX as LIBRARY
from autotune.policy import Policy
from autotune.prior import guess_all_us
from autotune.problem import Problem
from autotune.race import Race, race
from autotune.records import Status

PREFIX = "simulated:"
_HANG_S = 3600.0
_SLOWED = 1.4
"""Factor on times while the simulated GPU is too hot."""
_LEAST_US = 2.0


class Fate(StrEnum):
    """What becomes of a configuration on the simulated device."""

    SOUND = "sound"
    WRONG = "wrong"
    HANG = "hang"
    CRASH = "crash"


@dataclass(frozen=True, slots=True)
class SimulatedDevice:
    """Which GPU, and how badly it behaves; shares are of 1."""

    arch: GpuArch
    seed: int = 0
    noise: float = 0.01
    """Relative deviation of a sample."""
    drift: float = 0.03
    """How much slower the device gets from cold to warm."""
    hidden: float = 0.1
    """Deviation of the logarithm of true time over model."""
    hot: float = 0.0
    """Share of rounds during which heat slows the device down."""
    wrong: float = 0.0
    hang: float = 0.0
    crash: float = 0.0
    library: float = 1.1
    """Time of the library's routines over that of the default configuration..."""
    library_from: float = 0.0
    """...where the product of a problem's sizes is at least this; twice that below."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `simulated:GPU?name=number&...`.

        Raises:
            UnknownChoiceError: no such GPU, or no such name.
            UsageError: not a number.
        """
        gpu, _, query = text.removeprefix(PREFIX).partition("?")
        known = {field.name: field.type for field in dataclasses.fields(cls)}
        del known["arch"]
        values: dict[str, Any] = {}
        for name, value in parse_qsl(query, keep_blank_values=True):
            if name not in known:
                raise UnknownChoiceError("trait of a simulated GPU", name, known)
            try:
                values[name] = int(value) if name == "seed" else float(value)
            except ValueError as error:
                raise UsageError(f"simulated GPU: {name}={value!r} is no number") from error
        return cls(lookup(gpu), **values)

    def fate(self, kernel: str, config: Mapping[str, Any]) -> Fate:
        """What becomes of a configuration."""
        draw = self._draw("fate", kernel, config).random()
        for fate, share in ((Fate.WRONG, self.wrong), (Fate.HANG, self.hang)):
            if draw < share:
                return fate
            draw -= share
        return Fate.CRASH if draw < self.crash else Fate.SOUND

    def true_us(self, spec: KernelSpec[Any], point: Problem, config: Config) -> float:
        """Time without noise, drift or heat, microseconds."""
        guess = float(guess_all_us(self.arch, [(spec.work(point, config, self.arch), config)])[0])
        hidden = math.exp(self._draw("time", spec.name, config).gauss(0.0, self.hidden))
        return max(_LEAST_US, guess * hidden)

    def peer_us(self, spec: KernelSpec[Any], point: Problem, name: str) -> float:
        """Time of somebody else's implementation, a function of the default's alone."""
        default_us = self.true_us(spec, point, spec.default_config(point, self.arch))
        if not name.startswith(LIBRARY):
            return 1.1 * default_us
        is_near = math.prod(point.nearest_axes().values()) >= self.library_from
        return self.library * (1.0 if is_near else 2.0) * default_us

    def _draw(self, what: str, kernel: str, config: Mapping[str, Any]) -> random.Random:
        text = f"{self.seed} {what} {kernel} {sorted(config.items())}"
        return random.Random(hashlib.sha256(text.encode()).digest())


class SimulatedGpu:
    """Samples and clock readings of one simulated device during one race."""

    def __init__(self, device: SimulatedDevice, label: str) -> None:
        self._device = device
        self._random = random.Random(f"{device.seed} {label}")
        self._hot = False
        self._samples = 0

    def stopwatch(self, true_us: float) -> Callable[[], float]:
        """What takes a sample: microseconds."""

        def sample() -> float:
            self._samples += 1
            warmth = 1.0 - math.exp(-self._samples / 50.0)
            noise = abs(self._random.gauss(0.0, self._device.noise))  # nothing is faster than it is
            if self._random.random() < 0.01:
                noise += 0.5  # an interrupt, a page fault
            slowed = _SLOWED if self._hot else 1.0
            return true_us * (1.0 + self._device.drift * warmth) * (1.0 + noise) * slowed

        return sample

    def read(self) -> ClockReading:
        """Clocks of the round that ends now; heat comes and goes between rounds."""
        arch, hot = self._device.arch, self._hot
        self._hot = self._random.random() < self._device.hot
        return ClockReading(
            sm_mhz=round(arch.clock_mhz / (_SLOWED if hot else 1.0)),
            memory_mhz=2600,
            power_w=650.0,
            temperature_c=88 if hot else 60,
            reasons=SW_THERMAL if hot else 0,
        )


def hello(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer as `evaluate.hello` would."""
    return {"status": Status.OK}


def check_candidate(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer as `evaluate.check_candidate` would."""
    device = SimulatedDevice.parse(request["device"])
    reason = _suffer(device, request["kernel"], request["config"])
    if reason is not None:
        return {
            "status": Status.WRONG_RESULT,
            "reason": reason,
            "relative": 0.5,
            "elementwise": 1.0,
        }
    return {"status": Status.OK, "relative": 1e-4, "elementwise": 2e-4}


def race_candidates(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer as `evaluate.race_candidates` would."""
    device = SimulatedDevice.parse(request["device"])
    spec = load_kernel(request["kernel"])
    point = spec.problem_type.from_axes(request["problem"])
    gpu = SimulatedGpu(device, f"{request['kernel']} {point.label()} {request.get('again', 0)}")
    configs = [Config(config) for config in request["configs"]]
    faults = [_suffer(device, spec.name, config) for config in configs]
    watches = [
        gpu.stopwatch(device.true_us(spec, point, config))
        for config, fault in zip(configs, faults, strict=True)
        if fault is None
    ]
    for name in request.get("peers", ()):
        watches.append(gpu.stopwatch(device.peer_us(spec, point, name)))
        faults.append(None)
    policy = Policy.from_json(request["policy"])
    if not watches:
        return {"status": Status.OK, **Race.failed(0, "").with_faults(faults).to_json()}
    found = race(watches, gpu, policy).with_faults(faults)
    return {"status": Status.OK, **found.to_json()}


def sweep_candidates(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer as `evaluate.sweep_candidates` would."""
    rows = []
    for config in request["configs"]:
        found = Race.from_json(race_candidates({**request, "configs": [config]}))
        wrong = found.faults[0] is not None
        rows.append(
            {
                "status": Status.WRONG_RESULT if wrong else Status.OK,
                "reason": found.faults[0],
                "samples_us": found.samples_us[0],
            }
        )
    return {"status": Status.OK, "rows": rows}


def ceilings(request: Mapping[str, Any]) -> dict[str, Any]:
    """Nine tenths of the data sheet."""
    arch = SimulatedDevice.parse(request["device"]).arch
    return {
        "status": Status.OK,
        "copy_gbs": 0.9 * arch.dram_gbs,
        "gemm_tflops": 0.8 * arch.peak_tflops.get("bf16", arch.peak_tflops["fp32"]),
        "samples_us": {},
    }


def canaries(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer as `evaluate.race_canaries` would."""
    gpu = SimulatedGpu(SimulatedDevice.parse(request["device"]), "canaries")
    return {
        "status": Status.OK,
        "samples": {name: [gpu.stopwatch(100.0)() for _ in range(10)] for name in ("copy", "gemm")},
    }


def _suffer(device: SimulatedDevice, kernel: str, config: Mapping[str, Any]) -> str | None:
    """Hang, crash, or say what is wrong; None for a sound configuration."""
    match device.fate(kernel, config):
        case Fate.HANG:
            time.sleep(_HANG_S)
        case Fate.CRASH:
            os.kill(os.getpid(), signal.SIGSEGV)
        case Fate.WRONG:
            return "simulated: relative 5.0e-01, worst element 1.0e+00"
        case Fate.SOUND:
            pass
    return None


OPERATIONS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "hello": hello,
    "check": check_candidate,
    "race": race_candidates,
    "sweep": sweep_candidates,
    "ceilings": ceilings,
    "canaries": canaries,
}
"""What a worker is asked to do on a device, answered by a simulated one."""
