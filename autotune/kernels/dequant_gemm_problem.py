"""What the dequant GEMM is asked to do: problems, inputs to check and to time it, the truth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from autotune.kernels.byte_split import (
    CELL_BYTES,
    K_MULTIPLE,
    QuantisedWeights,
    dequantise,
    num_cells,
    num_groups,
    pack,
)
from autotune.kernels.dtypes import DTYPE_BYTES, FLOAT_DTYPES, torch_dtype
from autotune.kernels.extents import check_extents
from autotune.kernels.packed_words import pack_words, per_word, unpack_words
from autotune.kernels.spec import Inputs
from autotune.problem import Problem, exact, nearest

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class DequantGemmProblem(Problem):
    """out [m, n] = x [m, k] times the transpose of quantised weights [n, k]."""

    kernel: ClassVar[str] = "dequant_gemm"

    dtype: str = exact("bf16", "dtype of activations, scales, zeros and output", FLOAT_DTYPES)
    bits: int = exact(4, "bits of a weight", (4, 8))
    group_size: int = exact(128, "k's that share a scale, 0 for all of them", (0, 32, 64, 128))
    zero_point: bool = exact(True, "a zero per group; without, it is 2^(bits - 1)")
    n: int = exact(4096, "output features")
    k: int = exact(4096, "input features")
    m: int = nearest(16, "rows of x (tokens)")
    layout: str = exact(
        "byte_split",
        "how weights are packed; gptq_i32, that of checkpoints, is a baseline",
        ("byte_split", "gptq_i32"),
        optional=True,
    )

    def __post_init__(self) -> None:
        """Refuse a matrix without elements, or wider than kernels can address."""
        super().__post_init__()
        check_extents(self.n, self.k)

    @property
    def in_words(self) -> bool:
        """Whether weights are fields of 32-bit words, not bytes in cells."""
        return self.layout == "gptq_i32"

    @property
    def k_padded(self) -> int:
        """K as stored: a multiple of 32, or of the weights in a word."""
        multiple = per_word(self.bits) if self.in_words else K_MULTIPLE
        return math.ceil(self.k / multiple) * multiple

    @property
    def weight_bytes(self) -> int:
        """Packed weights, padding included."""
        return self.n * self.k_padded * self.bits // 8

    @property
    def group_bytes(self) -> int:
        """Scales and zeros."""
        tables = 2 if self.zero_point else 1
        return num_groups(self.k, self.group_size) * self.n * tables * DTYPE_BYTES[self.dtype]


def hard_problems() -> list[DequantGemmProblem]:
    """Every group size, both zeros, N and K that nothing divides, one element, no rows."""
    shapes: list[dict[str, Any]] = [
        {"bits": 4, "group_size": 32, "zero_point": True, "n": 48, "k": 96, "m": 3},
        {"bits": 4, "group_size": 64, "zero_point": True, "n": 32, "k": 192, "m": 17},
        {"bits": 4, "group_size": 128, "zero_point": True, "n": 40, "k": 256, "m": 1},
        {"bits": 4, "group_size": 128, "zero_point": False, "n": 33, "k": 200, "m": 5},
        {"bits": 4, "group_size": 0, "zero_point": True, "n": 72, "k": 130, "m": 16},
        {"bits": 4, "group_size": 0, "zero_point": False, "n": 16, "k": 256, "m": 2},
        {"bits": 8, "group_size": 32, "zero_point": True, "n": 50, "k": 101, "m": 4},
        {"bits": 8, "group_size": 64, "zero_point": True, "n": 40, "k": 256, "m": 19},
        {"bits": 8, "group_size": 128, "zero_point": False, "n": 64, "k": 384, "m": 6},
        {"bits": 8, "group_size": 0, "zero_point": False, "n": 24, "k": 75, "m": 33},
        {"bits": 4, "group_size": 32, "zero_point": True, "n": 1, "k": 1, "m": 1},
        {"bits": 4, "group_size": 128, "zero_point": True, "n": 32, "k": 128, "m": 0},
    ]
    words = {"layout": "gptq_i32"}
    shapes += [
        {"bits": 4, "group_size": 32, "zero_point": True, "n": 48, "k": 96, "m": 3, **words},
        {"bits": 4, "group_size": 64, "zero_point": False, "n": 33, "k": 203, "m": 17, **words},
        {"bits": 8, "group_size": 0, "zero_point": True, "n": 40, "k": 130, "m": 1, **words},
    ]
    return [
        DequantGemmProblem(dtype=dtype, **shape)
        for dtype, chosen in (("fp16", shapes), ("bf16", shapes[::2]), ("fp32", shapes[1::2]))
        for shape in chosen
    ]


def make_inputs(problem: DequantGemmProblem, seed: int, device: str) -> Inputs:
    """Random levels, scales and zeros, the extreme zeros among them.

    NaN follows every row of x and the last row of scales and zeros.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    kind, top = torch_dtype(problem.dtype), (1 << problem.bits) - 1
    groups = num_groups(problem.k, problem.group_size)
    levels = torch.randint(
        0, top + 1, (problem.n, problem.k), generator=generator, dtype=torch.uint8
    )
    x = torch.full((problem.m, problem.k + 16), math.nan, dtype=kind)
    x[:, : problem.k] = torch.randn((problem.m, problem.k), generator=generator).to(kind)

    def guarded(rows: torch.Tensor) -> torch.Tensor:
        stored = torch.full((groups + 4, problem.n), math.nan, dtype=kind)
        stored[:groups] = rows.to(kind)
        return stored.to(device)[:groups]

    spread = 0.5 + torch.rand((groups, problem.n), generator=generator)
    inputs = {
        "out": torch.full((problem.m, problem.n), math.nan, dtype=kind, device=device),
        "x": x.to(device)[:, : problem.k],
        "packed": _packed(problem, levels.to(device)),
        "scales": guarded(spread / (top * math.sqrt(problem.k))),
    }
    if problem.zero_point:
        zeros = torch.randint(0, top + 1, (groups, problem.n), generator=generator)
        zeros.view(-1)[0], zeros.view(-1)[-1] = top, 0
        inputs["zeros"] = guarded(zeros)
    return inputs


def _packed(problem: DequantGemmProblem, levels: torch.Tensor) -> torch.Tensor:
    """Levels [n, k] as the problem's layout has them."""
    if problem.in_words:
        return pack_words(levels, problem.bits).T.contiguous()
    return pack(levels, problem.bits)


def bench_inputs(problem: DequantGemmProblem, seed: int, device: str) -> Inputs:
    """Random bytes, scales and zeros drawn on the device, nothing poisoned."""
    import torch

    generator = torch.Generator(device).manual_seed(seed)
    kind, top = torch_dtype(problem.dtype), (1 << problem.bits) - 1
    cells = (num_cells(problem.k, problem.bits), problem.n, CELL_BYTES)
    words = (problem.k_padded * problem.bits // 32, problem.n * 4)
    groups = (num_groups(problem.k, problem.group_size), problem.n)
    x = torch.empty((problem.m, problem.k), dtype=kind, device=device)
    scales = torch.rand(groups, generator=generator, device=device) + 0.5
    packed = torch.randint(
        0,
        256,
        words if problem.in_words else cells,
        dtype=torch.uint8,
        generator=generator,
        device=device,
    )
    inputs = {
        "out": torch.empty((problem.m, problem.n), dtype=kind, device=device),
        "x": x.normal_(generator=generator),
        "packed": packed.view(torch.int32) if problem.in_words else packed,
        "scales": (scales / (top * math.sqrt(problem.k))).to(kind),
    }
    if problem.zero_point:
        zeros = torch.randint(0, top + 1, groups, generator=generator, device=device)
        inputs["zeros"] = zeros.to(kind)
    return inputs


def reference(problem: DequantGemmProblem, inputs: Inputs) -> torch.Tensor:
    """Unpack and dequantise the whole matrix, then one product in fp64: [m, n]."""
    packed = inputs["packed"]
    if problem.in_words:
        packed = pack(unpack_words(packed.T, problem.bits)[:, : problem.k], problem.bits)
    weights = QuantisedWeights(
        packed=packed,
        scales=inputs["scales"],
        zeros=inputs.get("zeros"),
        bits=problem.bits,
        group_size=problem.group_size,
        n=problem.n,
        k=problem.k,
    )
    product: torch.Tensor = inputs["x"].double() @ dequantise(weights).T
    return product
