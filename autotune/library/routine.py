"""What a library routine is: a launch with a kernel's own arguments, and when there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autotune.problem import Problem

Launch = Callable[..., Any]
"""Takes the arguments of the kernel's own `launch`, by its names, and writes `out`."""


@dataclass(frozen=True, slots=True)
class Routine:
    """An implementation in torch that takes a kernel's place, tensor for tensor."""

    why_not: Callable[[Problem], str | None]
    """Why it cannot serve a problem (its exact axes; sizes play no part), None if it can."""
    make: Callable[[Problem], Launch]
    """The launch for a problem of any sizes; imports torch."""
