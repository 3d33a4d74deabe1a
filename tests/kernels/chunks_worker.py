"""Sequences cut into chunks, alone and in batches, in Triton's interpreter, for `test_chunks`.

Prints a JSON object: what is wrong with each case, by name, and what would be if a batch set the
number of ranges. Started with TRITON_INTERPRET set; its argument is a folder for rendered kernels.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from autotune.arch import lookup
from autotune.config import Config, KnobValue
from autotune.correctness import complaint, errors_of
from autotune.kernels import load_kernel
from autotune.kernels.paged_attention import poisoned_cache
from autotune.kernels.paged_attention_decode_problem import DecodeProblem
from autotune.kernels.spec import Inputs
from autotune.paths import templates_dir
from autotune.problem import AxisValue
from autotune.render import TemplateFolder, import_file

ARCH = lookup("a100")
SPEC = load_kernel("paged_attention_decode")
LENGTHS = (257, 0, 1, 127, 128, 129)
"""Of contexts, with chunks of 128."""
SMALL: dict[str, AxisValue] = {
    "dtype": "fp32", "head_dim": 20, "group": 1, "block_size": 16, "num_kv_heads": 1,
    "context_len": 1, "num_seqs": len(LENGTHS),
}  # fmt: skip
LOOP: dict[str, KnobValue] = {"tile": 64, "num_warps": 2, "num_stages": 3, "lookup": "gather"}
PAGES: dict[str, KnobValue] = {"tail": "split_loop", "prefetch": True, "lookup": "pages"}
CASES: dict[str, tuple[dict[str, AxisValue], dict[str, KnobValue]]] = {
    "plain": ({}, {}),
    "blocks larger than chunks": ({"block_size": 256}, {"lookup": "scalar"}),
    "blocks that divide no chunk": (
        {"block_size": 48}, {"tile": 16, "num_warps": 1, "lookup": "scalar"}
    ),
    "window": ({"window": 140}, PAGES),
    "all variants": (
        {"dtype": "fp16", "kv_dtype": "int8", "kv_scale": "token", "softcap": 2.0, "alibi": True,
         "sinks": True, "group": 2}, PAGES,
    ),
    "fp8 and sinks in a window": ({"kv_dtype": "fp8", "sinks": True, "window": 200}, {}),
    "no more than two": ({"sinks": True, "group": 2}, {"num_splits": 2}),
}  # fmt: skip
"""Exact axes, and knobs away from `LOOP`."""


def poisoned_empty(*shape: Any, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """What a kernel may not read before it has written it."""
    return torch.full(*shape, math.nan, dtype=dtype, device=device)


def load(problem: DecodeProblem, knobs: dict[str, KnobValue]) -> ModuleType:
    """Render and import; a bound on ranges that no search would try is all that may be illegal."""
    space = SPEC.space(problem, ARCH)
    usual = space.steadied(SPEC.default_config(problem, ARCH))
    wanted = {**usual, **LOOP, "chunk_tokens": 128, **knobs}
    space.config(**{**wanted, "num_splits": 64})
    rendered = TemplateFolder(templates_dir()).render(SPEC, problem, Config(wanted))
    return import_file(rendered.write(Path(sys.argv[1])))


def inputs_of(problem: DecodeProblem) -> Inputs:
    """Arguments of `launch` for sequences of all lengths; the first is loud under a soft cap."""
    made = SPEC.make_inputs(problem, 3, "cpu")
    cache = poisoned_cache(problem, list(LENGTHS), 7, "cpu")
    return {**made, **cache, "context_lens": torch.tensor(LENGTHS, dtype=torch.int32)}


def run(module: ModuleType, inputs: Inputs, seqs: list[int], width: int) -> torch.Tensor:
    """Outputs of some sequences in that order, with block tables of that many columns."""
    tables = inputs["block_tables"]
    wide = torch.zeros((len(seqs), width), dtype=torch.int32)  # page 0 is poisoned
    kept = min(width, tables.shape[1])
    wide[:, :kept] = tables[seqs, :kept]
    q = inputs["q"][seqs].contiguous()
    out = torch.full_like(q, math.nan)
    lens = inputs["context_lens"][seqs].contiguous()
    given = {**inputs, "q": q, "out": out, "block_tables": wide, "context_lens": lens}
    module.launch(**given)
    return out


def faults(axes: dict[str, AxisValue], knobs: dict[str, KnobValue]) -> list[str]:
    """Differences to the reference, and between batches."""
    problem = DecodeProblem.from_axes(SMALL | axes)
    module, inputs = load(problem, knobs), inputs_of(problem)
    full = inputs["block_tables"].shape[1]
    together = run(module, inputs, list(range(len(LENGTHS))), full)
    errors = errors_of(together, SPEC.reference(problem, inputs))
    found = [reason] if (reason := complaint(errors, SPEC.tolerance(problem))) else []
    for seq, length in enumerate(LENGTHS):
        alone = run(module, inputs, [seq], max(1, math.ceil(length / problem.block_size)))
        if not torch.equal(alone[0], together[seq]):
            found.append(f"{length} tokens alone")
    some = [4, 3, 0, 5, 1]
    if not torch.equal(run(module, inputs, some, 3 * full), together[some]):
        found.append("others together, tables too wide")
    return found


def faults_without() -> list[str]:
    """Differences where a batch sets how many ranges there are at most."""
    problem = DecodeProblem.from_axes(SMALL)
    module, inputs = load(problem, {}), inputs_of(problem)
    outs = []
    for most in (64, 1):
        module.NUM_SPLITS = most  # type: ignore[attr-defined]
        outs.append(run(module, inputs, [0], inputs["block_tables"].shape[1]))
    return [] if torch.equal(*outs) else [f"{LENGTHS[0]} tokens"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.empty = poisoned_empty  # type: ignore[assignment]
    found = {name: faults(axes, knobs) for name, (axes, knobs) in CASES.items()}
    print(json.dumps({"with": found, "without": faults_without()}))
