"""Clocks of an NVIDIA GPU through NVML. Looks only: never sets a clock, a limit or a mode."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from autotune.clocks import ClockReading


class UnknownClocks:
    """A GPU without NVML (AMD, or no permission)."""

    def read(self) -> ClockReading | None:
        """Nothing."""
        return None


class NvmlClocks:
    """One GPU, through `nvml`: the `pynvml` module, or one with the same functions."""

    def __init__(self, nvml: Any, handle: object) -> None:
        self._nvml = nvml
        self._handle = handle

    def read(self) -> ClockReading | None:
        """Clocks, power, temperature and clock event reasons."""
        nvml, handle = self._nvml, self._handle
        reasons = self._ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
        milliwatts = self._ask(nvml.nvmlDeviceGetPowerUsage, handle)
        return ClockReading(
            sm_mhz=self._ask(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
            memory_mhz=self._ask(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
            power_w=None if milliwatts is None else milliwatts / 1000.0,
            temperature_c=self._ask(
                nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU
            ),
            reasons=reasons or 0,
        )

    def _ask(self, question: Callable[..., Any], *arguments: object) -> int | None:
        try:
            return int(question(*arguments))
        except self._nvml.NVMLError:  # virtual machines answer some questions only
            return None


@contextlib.contextmanager
def clocks_of(index: int) -> Iterator[NvmlClocks | UnknownClocks]:
    """Clocks of NVML's GPU number `index` while the block runs."""
    try:
        import pynvml
    except ImportError:
        yield UnknownClocks()
        return
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    except pynvml.NVMLError:
        yield UnknownClocks()
        return
    try:
        yield NvmlClocks(pynvml, handle)
    finally:
        pynvml.nvmlShutdown()


def fixed_facts(index: int) -> dict[str, Any]:
    """What does not change while a GPU is used: limits, modes, firmware. Empty without NVML."""
    try:
        import pynvml
    except ImportError:
        return {}
    questions: dict[str, Callable[[Any], Any]] = {
        "uuid": pynvml.nvmlDeviceGetUUID,
        "vbios": pynvml.nvmlDeviceGetVbiosVersion,
        "power_limit_mw": pynvml.nvmlDeviceGetEnforcedPowerLimit,
        "persistence": pynvml.nvmlDeviceGetPersistenceMode,
        "ecc": lambda handle: pynvml.nvmlDeviceGetEccMode(handle)[0],
        "most_sm_mhz": lambda h: pynvml.nvmlDeviceGetMaxClockInfo(h, pynvml.NVML_CLOCK_SM),
        "most_memory_mhz": lambda h: pynvml.nvmlDeviceGetMaxClockInfo(h, pynvml.NVML_CLOCK_MEM),
        "other_processes": lambda h: len(pynvml.nvmlDeviceGetComputeRunningProcesses(h)),
    }
    facts: dict[str, Any] = {}
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    except pynvml.NVMLError:
        return {}
    try:
        for name, question in questions.items():
            with contextlib.suppress(pynvml.NVMLError):  # not every product answers every question
                facts[name] = question(handle)
    finally:
        pynvml.nvmlShutdown()
    return facts
