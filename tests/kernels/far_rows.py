"""Kernels on tensors whose rows lie so far apart that offsets pass 2^31 elements.

Run by `interpreted_parts`, in Triton's interpreter. Address space is taken, memory is not.
"""

from __future__ import annotations

import math
import mmap
from pathlib import Path
from typing import Any

import torch

from autotune.arch import lookup
from autotune.kernels import load_kernel
from autotune.kernels.spec import Inputs
from autotune.paths import templates_dir
from autotune.render import TemplateFolder, import_file

_MAP_NORESERVE = 0x4000
"""Of Linux; Python has the name from 3.13 on."""
_SIZES = "dtype=fp16,num_kv_heads=1,head_dim=16,group=2"
CASES = (
    ("paged_attention_decode", f"{_SIZES},num_seqs=5,context_len=20", ("q", "out")),
    ("paged_attention_prefill", f"{_SIZES},num_seqs=4,query_len=5,context_len=20", ("q", "out")),
    ("dequant_gemm", "dtype=fp16,n=32,k=64,m=3,group_size=32", ("x",)),
    ("dequant_gemm", "dtype=fp16,n=32,k=64,m=17,group_size=32", ("x",)),
    ("rms_norm", "dtype=fp16,columns=40,rows=5", ("x",)),
    ("quantize_per_token", "dtype=fp16,columns=40,rows=5", ("x",)),
)
"""Kernel, problem, and which tensors may have any distance between rows."""


def far(rows: torch.Tensor) -> torch.Tensor:
    """The same numbers, the last row 2^31 elements after the first."""
    count = max(2, len(rows))
    stride = math.ceil(2**31 / (count - 1) / 16) * 16
    elements = (count - 1) * stride + rows[0].numel()
    anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    space = mmap.mmap(-1, elements * rows.element_size(), flags=anonymous)
    flat = torch.frombuffer(space, dtype=rows.dtype, count=elements)
    found = flat.as_strided(rows.shape, (stride, *rows[0].contiguous().stride()))
    found.copy_(rows)
    return found


def differing(folder: Path) -> list[str]:
    """Cases whose outputs are not those of compact tensors, to the bit."""
    found = []
    for kernel, text, names in CASES:
        spec: Any = load_kernel(kernel)
        problem = spec.problem_type.parse(text)
        config = spec.default_config(problem, lookup("a100"))
        rendered = TemplateFolder(templates_dir()).render(spec, problem, config)
        module = import_file(rendered.write(folder))

        def values(inputs: Inputs, far_names: tuple[str, ...]) -> torch.Tensor:
            inputs = inputs | {name: far(inputs[name]) for name in far_names}
            out = spec.run(module, problem, inputs)  # noqa: B023  (called at once)
            return spec.values(problem, inputs, out).double()  # noqa: B023

        compact, spread = (
            values(spec.make_inputs(problem, 0, "cpu"), chosen) for chosen in ((), names)
        )
        if not torch.equal(compact.nan_to_num(7.0), spread.nan_to_num(7.0)):
            found.append(f"{kernel} {text}")
    return found
