"""cuBLAS through torch: with separate activations, compiled by Inductor, over weights in full."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from autotune.kernels.byte_split import QuantisedWeights, dequantise
from autotune.kernels.spec import Inputs
from autotune.problem import Problem

if TYPE_CHECKING:
    import torch

Launch = Callable[[], Any]


def mlp_cublas(problem: Problem, inputs: Inputs) -> Launch:
    """One product, then activation and product of halves as separate kernels."""
    forward = _forward(problem)
    return lambda: forward(**_tensors(inputs))


def mlp_compiled(problem: Problem, inputs: Inputs) -> Launch:
    """The same under `torch.compile`: cuBLAS, then one fused kernel for the rest."""
    import torch

    forward = torch.compile(_forward(problem), dynamic=False, fullgraph=True)
    return lambda: forward(**_tensors(inputs))


def dequantised_cublas(problem: Problem, inputs: Inputs) -> Launch:
    """The product over weights that were never quantised: what quantising is to beat."""
    from torch.nn.functional import linear

    axes = problem.exact_axes()
    weights = dequantise(
        QuantisedWeights(
            packed=inputs["packed"],
            scales=inputs["scales"],
            zeros=inputs.get("zeros"),
            bits=int(axes["bits"]),
            group_size=int(axes["group_size"]),
            n=int(axes["n"]),
            k=int(axes["k"]),
        )
    ).to(inputs["x"].dtype)
    return lambda: linear(inputs["x"], weights)


def _tensors(inputs: Inputs) -> Inputs:
    return {name: inputs[name] for name in ("x", "weight", "residual") if name in inputs}


def _forward(problem: Problem) -> Callable[..., torch.Tensor]:
    """Function of x [m, k], weight and perhaps a residual: the MLP half in torch's own terms."""
    from torch.nn import functional

    axes = problem.exact_axes()
    columns, activation = int(axes["n"]), str(axes["activation"])

    def forward(
        x: torch.Tensor, weight: torch.Tensor, residual: torch.Tensor | None = None
    ) -> torch.Tensor:
        product = functional.linear(x, weight)
        if activation == "none":
            return product if residual is None else product + residual
        gate, up = product[:, :columns], product[:, columns:]
        if activation == "silu":
            return functional.silu(gate) * up
        return functional.gelu(gate, approximate="tanh" if "tanh" in activation else "none") * up

    return forward
