"""What a kernel must say of itself, so that it can be rendered, compiled, judged and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from autotune.arch import GpuArch
from autotune.config import Config
from autotune.model_shape import ModelShape
from autotune.problem import Problem
from autotune.space import SearchSpace

if TYPE_CHECKING:
    import torch

P = TypeVar("P", bound=Problem)

Inputs = dict[str, Any]
"""Tensors and numbers by the name of the `launch` argument that takes them."""


@dataclass(frozen=True, slots=True)
class Work:
    """What one entry point has to do at one point: the cost model's raw material.

    Counts are totals over the grid unless they say "per program".
    """

    entry: str
    grid: int
    """Programs launched."""
    loop_steps: float
    """Iterations of the main loop, mean per program."""
    longest_steps: float
    """Iterations of the slowest program."""
    flops: float
    """Multiply-add operations counted as two, padding included: what the matrix unit executes."""
    matrix_dtype: str | None
    """Input dtype of the matrix unit; None if the entry does not use it."""
    dram_bytes: float
    """Bytes that must come from or go to device memory, each once."""
    l2_bytes: float
    """Bytes requested from L2 (re-reads by several programs counted each time)."""
    step_bytes: float
    """Bytes that one program loads from global memory per main-loop iteration."""
    atomic_bytes: float = 0.0
    """Bytes added to device memory atomically."""
    fills: int = 0
    """Launches before it that only set memory."""
    tile: tuple[int, int, int] = (64, 64, 64)
    """Rows, columns and depth of the product in one iteration, M side of the matrix unit first; for
    attention query rows, keys, and 64. All 64 where there is no product."""
    stored_bytes: int | None = None
    """Bytes of a number of the keys and values in memory, where `matrix_dtype` is not their own."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Error allowed against the fp64 reference."""

    relative: float
    """Frobenius norm of the error over that of the reference."""
    elementwise: float
    """Largest absolute error over the largest absolute value of the same output row."""


class KernelSpec(Protocol, Generic[P]):
    """One kernel: a template, its knobs, its meaning. Stateless; torch is imported when used."""

    name: ClassVar[str]
    template: ClassVar[str]
    """File below `templates/`."""
    problem_type: type[P]

    def space(self, problem: P, arch: GpuArch) -> SearchSpace:
        """Knobs and constraints; depends on the exact axes and the GPU only."""
        ...

    def default_config(self, problem: P, arch: GpuArch) -> Config:
        """Configuration that a good library ships without tuning, at this point; always legal."""
        ...

    def template_values(self, problem: P, config: Config) -> Mapping[str, Any]:
        """Names that the template needs beyond exact axes and knobs (derived constants)."""
        ...

    def work(self, problem: P, config: Config, arch: GpuArch) -> tuple[Work, ...]:
        """Work of each entry point, in launch order."""
        ...

    def flops(self, problem: P) -> float:
        """Operations that any algorithm must do."""
        ...

    def min_bytes(self, problem: P) -> float:
        """Fewest bytes that any algorithm must move through device memory."""
        ...

    def expected_mma(self, problem: P, config: Config, arch: GpuArch) -> str | None:
        """Matrix instruction class that the main entry point must compile to; None for any."""
        ...

    def reduction_order(self, problem: P, config: Config, arch: GpuArch) -> Config:
        """All that decides in which order a row of the output is summed, by name.

        Rows come out equal to the bit, whatever the batch, under repeatable configurations that
        agree on it; knobs that only say where and when a row is computed are not in it.
        """
        ...

    def problems(self, shape: ModelShape, dtype: str, block_sizes: tuple[int, ...]) -> list[P]:
        """Cells (one problem each, sizes at defaults) that a model needs."""
        ...

    def points(self, cell: P) -> list[P]:
        """The sizes at which a cell is judged."""
        ...

    def hard_problems(self) -> list[P]:
        """Small adversarial problems for `verify`: odd sizes, ragged, empty, every variant."""
        ...

    def make_inputs(self, problem: P, seed: int, device: str) -> Inputs:
        """Random inputs; memory that must not be read is NaN, outputs are NaN-poisoned."""
        ...

    def bench_inputs(self, problem: P, seed: int, device: str) -> Inputs:
        """Inputs for timing: random, nothing poisoned, every sequence as long as the point says."""
        ...

    def reference(self, problem: P, inputs: Inputs) -> torch.Tensor:
        """The right answer in fp64, computed by other means than the kernel."""
        ...

    def run(self, module: ModuleType, problem: P, inputs: Inputs) -> torch.Tensor:
        """Launch the rendered module on the inputs and return its output."""
        ...

    def values(self, problem: P, inputs: Inputs, out: torch.Tensor) -> torch.Tensor:
        """What `out`, returned by `run`, says, to be compared with `reference`.

        `out` itself, unless it is packed or quantised; then `inputs` has views of its parts.
        """
        ...

    def tolerance(self, problem: P) -> Tolerance:
        """Error allowed for this problem's dtypes."""
        ...
