"""The halves of an MLP by cuBLAS (hipBLASLt, oneDNN): one product, then the activation.

The product is rounded to the activations' type before the activation, where the kernel keeps fp32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from autotune.library.routine import Launch, Routine
from autotune.problem import Problem

if TYPE_CHECKING:
    import torch

Activate = Callable[["torch.Tensor", "torch.Tensor"], None]
"""Writes activation(gate) * up to the first, [m, n]; the second is [m, 2 n], gate columns first."""

_FIRST_ROWS = (1, 2)
"""Sizes that torch compiles variants for: one row, and any other number."""


def _separate(problem: Problem) -> Launch:
    """The product, and where there is an activation two kernels more."""
    if problem.exact_axes()["activation"] == "none":
        return _down
    return _gated(_activation(problem))


def _compiled(problem: Problem) -> Launch:
    """The product, then one kernel of Inductor's for all the rest."""
    import torch

    activate: Activate = torch.compile(_activation(problem), dynamic=True)
    columns = int(problem.exact_axes()["n"])
    ready: set[tuple[torch.device, torch.dtype]] = set()

    def first(out: torch.Tensor, product: torch.Tensor) -> None:
        # Compiled at once for all sizes, so that no later step, and no capture, waits for it.
        kind = (product.device, product.dtype)
        if kind not in ready:
            ready.add(kind)
            for rows in _FIRST_ROWS:
                zeros = product.new_zeros((rows, 2 * columns))
                activate(zeros.new_empty((rows, columns)), zeros)
        activate(out, product)

    return _gated(first)


def _gated(activate: Activate) -> Launch:
    from torch.nn.functional import linear

    def launch(
        out: torch.Tensor,  # [m, n]
        x: torch.Tensor,  # [m, k]
        weight: torch.Tensor,  # [2 n, k], gate rows first
        num_sms: int,
    ) -> None:
        if x.shape[0]:
            activate(out, linear(x, weight))

    return launch


def _down(
    out: torch.Tensor,  # [m, n]
    x: torch.Tensor,  # [m, k]
    weight: torch.Tensor,  # [n, k]
    num_sms: int,
    residual: torch.Tensor | None = None,  # [m, n]
) -> None:
    import torch

    if residual is None:
        torch.mm(x, weight.t(), out=out)
    else:
        torch.addmm(residual, x, weight.t(), out=out)


def _activation(problem: Problem) -> Activate:
    import torch
    from torch.nn import functional

    axes = problem.exact_axes()
    columns = int(axes["n"])
    known: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "silu": functional.silu,
        "gelu": functional.gelu,
        "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    }
    function = known[str(axes["activation"])]

    def activate(out: torch.Tensor, product: torch.Tensor) -> None:
        torch.mul(function(product[:, :columns]), product[:, columns:], out=out)

    return activate


def _always(problem: Problem) -> str | None:
    return None


def _with_activation(problem: Problem) -> str | None:
    if problem.exact_axes()["activation"] == "none":
        return "there is no activation to compile"
    return None


CUBLAS = Routine(_always, _separate)
COMPILED = Routine(_with_activation, _compiled)
