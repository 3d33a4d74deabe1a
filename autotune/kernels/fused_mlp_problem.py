"""What the fused MLP kernel is asked to do, small hard cases of it, and the right answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from autotune.errors import UsageError
from autotune.kernels.dtypes import DTYPE_BYTES, FLOAT_DTYPES, torch_dtype
from autotune.kernels.extents import check_extents
from autotune.kernels.spec import Inputs
from autotune.problem import Problem, exact, nearest

if TYPE_CHECKING:
    import torch

INTERPRETER_SMS = 4
"""Programs of a persistent kernel where there is no GPU to count: fewer than tiles, so it loops."""


@dataclass(frozen=True)
class FusedMlpProblem(Problem):
    """One half of a gated MLP over `m` tokens, or one rank's part of it."""

    kernel: ClassVar[str] = "fused_mlp"

    dtype: str = exact("bf16", "dtype of activations and weights", FLOAT_DTYPES)
    part: str = exact("gate_up", "which projection", ("gate_up", "down"))
    activation: str = exact(
        "silu", "of the gate; none for down", ("silu", "gelu_tanh", "gelu", "none")
    )
    residual: bool = exact(False, "add a residual to the output of down")
    n: int = exact(14336, "columns of the output: intermediate size, or hidden size for down")
    k: int = exact(4096, "columns of the input: hidden size, or intermediate size for down")
    m: int = nearest(16, "tokens in the batch")

    def __post_init__(self) -> None:
        """Refuse combinations that mean nothing, so that a cell has one name only."""
        super().__post_init__()
        if self.gated != (self.activation != "none"):
            wanted = "silu, gelu_tanh or gelu" if self.gated else "none"
            raise UsageError(f"part={self.part} with activation={self.activation}: use {wanted}")
        if self.gated and self.residual:
            raise UsageError("residual=True goes with part=down only")
        check_extents(self.n, self.k)

    @property
    def gated(self) -> bool:
        """Whether there are two products, gate and up."""
        return self.part == "gate_up"

    @property
    def halves(self) -> int:
        """Weight rows for each output column: gate and up, or one."""
        return 2 if self.gated else 1

    @property
    def operand_bytes(self) -> float:
        """Bytes of input and weight."""
        return 1.0 * (self.m + self.halves * self.n) * self.k * DTYPE_BYTES[self.dtype]

    @property
    def output_bytes(self) -> float:
        """Bytes of the output, and of the residual if there is one."""
        return 1.0 * self.m * self.n * DTYPE_BYTES[self.dtype] * (2 if self.residual else 1)


def hard_problems() -> list[FusedMlpProblem]:
    """Sizes that no tile divides, each activation, with and without residual, no token."""
    gate_up = [
        ("silu", 0, 40, 64),
        ("silu", 1, 40, 33),
        ("silu", 17, 129, 100),
        ("gelu_tanh", 3, 129, 256),
        ("gelu", 65, 40, 33),
        ("silu", 65, 64, 256),
        ("gelu_tanh", 33, 40, 100),
        ("gelu", 3, 129, 256),
    ]
    down = [
        (False, 0, 40, 64),
        (False, 1, 129, 256),
        (False, 17, 40, 33),
        (True, 65, 129, 100),
        (True, 3, 129, 33),
        (False, 65, 129, 100),
        (True, 1, 72, 256),
    ]
    found = []
    for dtype, count in (("fp16", 8), ("bf16", 4), ("fp32", 4)):
        for activation, m, n, k in gate_up[: count + 1]:
            found.append(FusedMlpProblem(dtype, "gate_up", activation, False, n, k, m))
        for residual, m, n, k in down[:count]:
            found.append(FusedMlpProblem(dtype, "down", "none", residual, n, k, m))
    return found


def make_inputs(problem: FusedMlpProblem, seed: int, device: str) -> Inputs:
    """Unit-variance products; the last token of gate-up is so loud that exp(-gate) overflows.

    Every input lies between NaNs, so that a read outside of it shows.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    kind = torch_dtype(problem.dtype)

    def draw(rows: int, cols: int, scale: float, last_row_scale: float = 1.0) -> torch.Tensor:
        margin = 64  # elements; keeps the alignment that torch gives
        inside = slice(margin, margin + rows * cols)
        flat = torch.full((rows * cols + 2 * margin,), math.nan)
        values = flat[inside].view(rows, cols).normal_(std=scale, generator=generator)
        values[-1:] *= last_row_scale
        return flat.to(kind).to(device)[inside].view(rows, cols)

    inputs: Inputs = {
        "out": torch.full((problem.m, problem.n), math.nan, dtype=kind, device=device),
        "x": draw(problem.m, problem.k, 1.0, 48.0 if problem.gated else 1.0),
        "weight": draw(problem.halves * problem.n, problem.k, problem.k**-0.5),
        "num_sms": _num_sms(device),
    }
    if problem.residual:
        inputs["residual"] = draw(problem.m, problem.n, 1.0)
    return inputs


def bench_inputs(problem: FusedMlpProblem, seed: int, device: str) -> Inputs:
    """Normal inputs drawn on the device, of the same spread as those of `make_inputs`."""
    import torch

    generator = torch.Generator(device).manual_seed(seed)
    kind = torch_dtype(problem.dtype)

    def draw(rows: int, cols: int, scale: float) -> torch.Tensor:
        values = torch.empty((rows, cols), dtype=kind, device=device)
        return values.normal_(std=scale, generator=generator)

    inputs: Inputs = {
        "out": torch.empty((problem.m, problem.n), dtype=kind, device=device),
        "x": draw(problem.m, problem.k, 1.0),
        "weight": draw(problem.halves * problem.n, problem.k, problem.k**-0.5),
        "num_sms": _num_sms(device),
    }
    if problem.residual:
        inputs["residual"] = draw(problem.m, problem.n, 1.0)
    return inputs


def reference(problem: FusedMlpProblem, inputs: Inputs) -> torch.Tensor:
    """Torch's matrix product and activations in fp64: [m, n]."""
    from torch.nn import functional

    product = inputs["x"].double() @ inputs["weight"].double().T
    if not problem.gated:
        return product + inputs["residual"].double() if problem.residual else product
    gate, up = product[:, : problem.n], product[:, problem.n :]
    if problem.activation == "silu":
        return functional.silu(gate) * up
    approximate = "tanh" if problem.activation == "gelu_tanh" else "none"
    return functional.gelu(gate, approximate=approximate) * up


def _num_sms(device: str) -> int:
    import torch

    if not device.startswith("cuda"):
        return INTERPRETER_SMS
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count
