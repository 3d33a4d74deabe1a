"""Products whose operands pass 2^31 elements: the last tile alone, in Triton's interpreter.

Run by `interpreted_parts`. Address space is taken, memory is not: all but the last rows are zeros
that nobody has written.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import mmap
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from autotune.arch import lookup
from autotune.correctness import complaint, errors_of
from autotune.kernels import load_kernel
from autotune.kernels.byte_split import num_groups, pack
from autotune.kernels.packed_words import pack_words
from autotune.paths import templates_dir
from autotune.render import TemplateFolder, import_file

_MAP_NORESERVE = 0x4000
"""Of Linux; Python has the name from 3.13 on."""
_FAR = 4
"""Rows at the far end that hold numbers, and columns that are compared: fewer than any tile has."""
_ROWS, _COLS = 2**25 + _FAR, 2**22 - 11
_TALL = f"dtype=fp16,m={_ROWS}"
_GATE, _DOWN = "part=gate_up,activation=silu", "part=down,activation=none"
_W4, _W8 = "bits=4,group_size=128,zero_point=True", "bits=8,group_size=0,zero_point=False"
CASES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    # x of [m, k] and an output of [m, n] past 2^31; sums of ranges, too.
    ("fused_mlp", f"{_TALL},{_GATE},n=72,k=80", {}),
    ("fused_mlp", f"{_TALL},{_GATE},n=72,k=80", {"schedule": "persistent", "block_m": 128}),
    ("fused_mlp", f"{_TALL},{_DOWN},residual=True,n=72,k=80", {"variant": "plain"}),
    ("fused_mlp", f"{_TALL},{_DOWN},n=72,k=80", {"variant": "split_k", "num_splits": 2}),
    ("fused_mlp", f"{_TALL},{_DOWN},n=40,k=520", {"variant": "split_k", "num_splits": 4}),
    ("fused_mlp", f"{_TALL},{_DOWN},n=72,k=80", {"swap_ab": True, "variant": "plain"}),
    ("dequant_gemm", f"{_TALL},{_W4},n=72,k=128", {"kind": "gemm"}),
    ("dequant_gemm", f"{_TALL},{_W4},n=72,k=256", {"kind": "split_k", "split_k": 2, "block_m": 16}),
    ("dequant_gemm", f"{_TALL},{_W4},n=72,k=256", {"kind": "gemv", "block_m": 4}),
    ("dequant_gemm", f"{_TALL},{_W4},n=72,k=256", {"kind": "split_k", "split_k": 2, "block_m": 4}),
    # A weight of [n, k], or [2 n, k], past 2^31.
    ("fused_mlp", f"dtype=fp16,{_GATE},m=3,n={_COLS},k=520", {"gate_layout": "two_dots"}),
    ("fused_mlp", f"dtype=fp16,{_GATE},m=3,n={_COLS},k=520", {"gate_layout": "interleaved"}),
    ("fused_mlp", f"dtype=fp16,{_DOWN},m=3,n={_COLS},k=520", {"variant": "plain"}),
    ("dequant_gemm", f"dtype=fp16,{_W4},m=3,n={_COLS},k=1536", {"kind": "gemm"}),
    ("dequant_gemm", f"dtype=fp16,{_W8},m=3,n={_COLS},k=800", {"kind": "gemm"}),
    # Scales and zeros of [k / 32, n], too.
    ("dequant_gemm", f"dtype=fp16,bits=8,group_size=32,m=3,n={_COLS},k=16672", {"kind": "gemm"}),
    ("dequant_gemm", f"dtype=fp16,{_W8},m=3,n={_COLS},k=800", {"kind": "gemv", "block_m": 4}),
    ("dequant_gemm", f"dtype=fp16,{_W4},m=3,n={_COLS},k=4224,layout=gptq_i32", {"kind": "gemm"}),
)
"""Kernel, problem, and knobs to come as close to as is legal."""


def _sparse(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    """Zeros that take memory where they are touched."""
    count = math.prod(shape)
    anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    space = mmap.mmap(-1, count * dtype.itemsize, flags=anonymous)
    return torch.frombuffer(space, dtype=dtype, count=count).view(shape)


@contextlib.contextmanager
def _last_programs(axis_of_ranges: int) -> Iterator[None]:
    """Let a launch run the last program of each axis only; of ranges of K all.

    Where ranges are summed, the last two: the last one alone may be nearly empty.
    """
    from triton.runtime import interpreter

    executor, builder = interpreter.GridExecutor, interpreter.interpreter_builder
    launch, set_dim, set_idx = executor.__call__, builder.set_grid_dim, builder.set_grid_idx

    def launch_last(self: Any, *arguments: Any, **options: Any) -> None:
        grid = (*self.grid, 1, 1)[:3]
        first = [size - 1 for size in grid]
        first[axis_of_ranges] = 0
        first[0] -= self.fn.__name__.endswith("_reduce")
        self.grid = (1,)
        builder.set_grid_dim = lambda *_: set_dim(*grid)
        for place in itertools.product(*map(range, first, grid)):
            builder.set_grid_idx = lambda *_, place=place: set_idx(*place)
            launch(self, *arguments, **options)

    executor.__call__ = launch_last
    try:
        yield
    finally:
        executor.__call__ = launch
        builder.set_grid_dim, builder.set_grid_idx = set_dim, set_idx


def _mlp(problem: Any, draw: torch.Generator) -> tuple[dict[str, Any], torch.Tensor]:
    """Inputs of the fused MLP, and the far end of what comes out, in fp64."""
    m, n, k = problem.m, problem.n, problem.k
    rows = min(_FAR, m)
    x, weight, out, residual = (
        _sparse(count, columns, dtype=torch.float16)
        for count, columns in ((m, k), (problem.halves * n, k), (m, n), (m, n))
    )
    x[-rows:] = torch.randn(rows, k, generator=draw)
    weight.view(-1, n, k)[:, -_FAR:] = torch.randn(_FAR, k, generator=draw) / k**0.5
    weight[-_FAR:] = torch.randn(_FAR, k, generator=draw) / k**0.5
    products = x[-rows:].double() @ weight.view(-1, n, k)[:, -_FAR:].double().mT
    inputs = {"x": x, "weight": weight, "out": out, "num_sms": 2**31 - 1}
    if problem.gated:
        return inputs, torch.nn.functional.silu(products[0]) * products[1]
    if problem.residual:
        residual[-rows:] = torch.randn(rows, n, generator=draw)
        return inputs | {"residual": residual}, products[0] + residual[-rows:, -_FAR:]
    return inputs, products[0]


def _quantised(problem: Any, draw: torch.Generator) -> tuple[dict[str, Any], torch.Tensor]:
    """Inputs of the dequant GEMM, and the far end of what comes out, in fp64."""
    m, n, k = problem.m, problem.n, problem.k
    rows, groups = min(_FAR, m), num_groups(k, problem.group_size)
    x, out = (_sparse(m, columns, dtype=torch.float16) for columns in (k, n))
    scales, zeros = (_sparse(groups, n, dtype=torch.float16) for _ in range(2))
    levels = torch.randint(0, 2**problem.bits, (_FAR, k), generator=draw, dtype=torch.uint8)
    if problem.in_words:
        words = pack_words(levels, problem.bits).T
        packed = _sparse(len(words), n, dtype=torch.int32)
        packed[:, -_FAR:] = words
    else:
        cells = pack(levels, problem.bits)
        packed = _sparse(len(cells), n, 16, dtype=torch.uint8)
        packed[:, -_FAR:] = cells
    x[-rows:] = torch.randn(rows, k, generator=draw)
    scales[:, -_FAR:] = (0.5 + torch.rand(groups, _FAR, generator=draw)) / 2**problem.bits
    zeros[:, -_FAR:] = 2 ** (problem.bits - 1)
    each = torch.arange(k) // (problem.group_size or k)
    weight = (levels.double() - zeros[each, -_FAR:].T) * scales[each, -_FAR:].T.double()
    inputs = {"x": x, "packed": packed, "scales": scales, "out": out}
    if problem.zero_point:
        zeros[:, -2] = 1  # one column with another zero
        weight[-2] = (levels[-2].double() - 1) * scales[each, -2].double()
        inputs["zeros"] = zeros
    return inputs, x[-rows:].double() @ weight.T


def wrong(folder: Path) -> list[str]:
    """Cases whose last tile is not what fp64 says, with the errors."""
    found = []
    for kernel, text, knobs in CASES:
        spec: Any = load_kernel(kernel)
        problem = spec.problem_type.parse(text)
        arch = lookup("a100")
        config = spec.space(problem, arch).closest({**spec.default_config(problem, arch), **knobs})
        assert knobs.items() <= dict(config).items(), f"{text}: {knobs} is not legal"
        rendered = TemplateFolder(templates_dir()).render(spec, problem, config)
        module: Any = import_file(rendered.write(folder))
        module.torch = SimpleNamespace(empty=_workspace, float32=torch.float32)
        make = _mlp if kernel == "fused_mlp" else _quantised
        inputs, expected = make(problem, torch.Generator().manual_seed(0))
        with _last_programs(axis_of_ranges=1 if kernel == "fused_mlp" else 2):
            module.launch(**inputs)
        errors = errors_of(inputs["out"][-_FAR:, -_FAR:], expected)
        if why := complaint(errors, spec.tolerance(problem)):
            found.append(f"{kernel} {text} {knobs}: {why}")
    return found


def _workspace(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """What a launch takes from torch for its partial sums."""
    assert device.type == "cpu"
    return _sparse(*shape, dtype=dtype)
