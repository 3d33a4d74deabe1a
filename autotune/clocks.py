"""The state of a GPU beside its samples: clocks, power, and why it holds itself back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

# Bits of NVML's clock event reasons (nvml.h, nvmlClocksEventReason*).
POWER_CAP, HW_SLOWDOWN, SW_THERMAL, HW_THERMAL, POWER_BRAKE = 0x04, 0x08, 0x20, 0x40, 0x80
SPOILS = HW_SLOWDOWN | SW_THERMAL | HW_THERMAL | POWER_BRAKE
"""With one of these a sample says more of the cooling than of the kernel."""


@dataclass(frozen=True, slots=True)
class ClockReading:
    """One look at a GPU; None for what it does not tell."""

    sm_mhz: int | None
    memory_mhz: int | None
    power_w: float | None
    temperature_c: int | None
    reasons: int
    """Clock event reasons, as bits."""

    @property
    def spoiled(self) -> bool:
        """Whether heat or a power brake held the GPU back."""
        return bool(self.reasons & SPOILS)

    @property
    def power_capped(self) -> bool:
        """Whether the power limit held the GPU back: normal under load, but worth a tag."""
        return bool(self.reasons & POWER_CAP)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`."""
        return cls(**data)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dataclasses.asdict(self)


class SeldomRead:
    """Clocks of which only every so many looks are taken: a look may take longer than a sample."""

    def __init__(self, clocks: Clocks, every: int) -> None:
        self._clocks = clocks
        self._every = every
        self._asked = 0

    def read(self) -> ClockReading | None:
        """State now on the first of `every` calls, None on the others."""
        self._asked += 1
        return self._clocks.read() if self._asked % self._every == 1 else None


class Clocks(Protocol):
    """Something that can be looked at between samples."""

    def read(self) -> ClockReading | None:
        """State now; None where nothing can be read."""
        ...
