"""Is a rendered kernel right? Run it on random, NaN-poisoned inputs and compare with fp64."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from autotune.kernels.spec import KernelSpec, Tolerance
from autotune.problem import Problem

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Errors:
    """Distance between an output and its reference."""

    relative: float | None
    """Frobenius norm of the error over the reference's; None if the output is not finite."""
    elementwise: float | None
    """Largest absolute error over the largest absolute reference of its row; None likewise."""

    def within(self, tolerance: Tolerance) -> bool:
        """Whether the output is finite and close enough."""
        return (
            self.relative is not None
            and self.elementwise is not None
            and self.relative <= tolerance.relative
            and self.elementwise <= tolerance.elementwise
        )

    def __str__(self) -> str:
        if self.relative is None or self.elementwise is None:
            return "not finite"
        return f"relative {self.relative:.1e}, worst element {self.elementwise:.1e}"


def errors_of(out: torch.Tensor, reference: torch.Tensor) -> Errors:
    """Compare an output [..., columns] with an fp64 reference of the same shape.

    Raises:
        ValueError: the shapes differ.
    """
    if out.shape != reference.shape:
        raise ValueError(f"output {tuple(out.shape)}, reference {tuple(reference.shape)}")
    if out.numel() == 0:
        return Errors(0.0, 0.0)
    if not bool(out.isfinite().all()):
        return Errors(None, None)
    difference = (out.double() - reference).abs()
    scale = float(reference.norm())
    rows = reference.abs().amax(dim=-1, keepdim=True)
    # A row of zeros (an empty context) must be zero to the last bit.
    ratio = difference / rows.where(rows > 0, rows.new_ones(()))
    worst = float(ratio.max())
    relative = float(difference.norm()) / scale if scale else float(difference.norm())
    assert not math.isnan(relative)
    return Errors(relative, worst)


def check(
    spec: KernelSpec[Any], module: ModuleType, problem: Problem, seed: int, device: str
) -> Errors:
    """Run `module` once on inputs drawn from `seed` and measure its error."""
    return Checker(spec, problem, seed, device).errors(module)


class Checker:
    """Poisoned inputs and their reference, made once for many candidates of one problem."""

    def __init__(self, spec: KernelSpec[Any], problem: Problem, seed: int, device: str) -> None:
        self._spec = spec
        self._problem = problem
        self._inputs = spec.make_inputs(problem, seed, device)
        self._poisoned = self._inputs["out"].clone()
        self._reference = spec.reference(problem, self._inputs).cpu()

    def errors(self, module: ModuleType) -> Errors:
        """Run a rendered module on an output that is poisoned again, and measure its error."""
        self._inputs["out"].copy_(self._poisoned)
        out = self._spec.run(module, self._problem, self._inputs)
        values = self._spec.values(self._problem, self._inputs, out)
        return errors_of(values.cpu(), self._reference)

    def wrong(self, module: ModuleType) -> str | None:
        """Why a module is not right within the kernel's tolerance; None if it is."""
        return complaint(self.errors(module), self._spec.tolerance(self._problem))


def complaint(errors: Errors, tolerance: Tolerance) -> str | None:
    """Why errors are not allowed, in a few words; None if they are."""
    if errors.within(tolerance):
        return None
    return f"{errors}; allowed {tolerance.relative:.1e} and {tolerance.elementwise:.1e}"
