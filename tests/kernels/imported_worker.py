"""Imported checkpoints through the real kernel, in Triton's interpreter, for `test_imported`.

Prints a JSON object: name of each case → "" or what is wrong with it. Started with TRITON_INTERPRET
set; its argument is a folder for rendered kernels.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import torch
from checkpoints import Layer, awq_tensors, gptq_tensors, random_layer

from autotune.arch import lookup
from autotune.correctness import complaint, errors_of
from autotune.kernels.awq import import_awq
from autotune.kernels.byte_split import QuantisedWeights
from autotune.kernels.dequant_gemm import DequantGemm
from autotune.kernels.dequant_gemm_problem import DequantGemmProblem
from autotune.kernels.gptq import import_gptq
from autotune.paths import templates_dir
from autotune.render import TemplateFolder, import_file

SPEC, ARCH = DequantGemm(), lookup("a100")


def wrong(layer: Layer, found: QuantisedWeights, order: torch.Tensor | None, m: int) -> str:
    """Run x of m rows; complaint about the result, empty if it is right."""
    zero_point = found.zeros is not None
    problem = DequantGemmProblem(
        "fp16", found.bits, found.group_size, zero_point, found.n, found.k, m
    )
    config = SPEC.default_config(problem, ARCH)
    rendered = TemplateFolder(templates_dir()).render(SPEC, problem, config)
    module = import_file(rendered.write(Path(sys.argv[1])))
    x = torch.randn((m, found.k), generator=torch.Generator().manual_seed(m)).half()
    out = torch.full((m, found.n), math.nan, dtype=torch.float16)
    tensors = {"packed": found.packed, "scales": found.scales}
    if found.zeros is not None:
        tensors["zeros"] = found.zeros
    module.launch(out=out, x=x if order is None else x[:, order], **tensors)
    reference = x.double() @ layer.weights().T  # of the checkpoint's numbers, in its own order
    return complaint(errors_of(out, reference), SPEC.tolerance(problem)) or ""


def main() -> None:
    """Every format, with rows in order and not, for few and more rows of x."""
    answers = {}
    for m in (1, 17):
        for act_order in (False, True):
            for bits, n, k in ((4, 40, 200), (8, 24, 96))[: 1 if m == 1 else 2]:
                layer = random_layer(n, k, bits, 64, seed=m, act_order=act_order)
                for version, name in ((1, "gptq"), (2, "gptq_v2")):
                    tensors = gptq_tensors(layer, bits, version)
                    found = import_gptq(**tensors, group_size=64, bits=bits, checkpoint_format=name)
                    assert (found.order is not None) == act_order
                    case = f"{name} {bits} bits m={m} act_order={act_order}"
                    answers[case] = wrong(layer, found.weights, found.order, m)
        layer = random_layer(40, 200, 4, 64, seed=m)
        answers[f"awq m={m}"] = wrong(
            layer, import_awq(**awq_tensors(layer), group_size=64), None, m
        )
    shuffled = random_layer(40, 200, 4, 64, seed=9, act_order=True)
    found = import_gptq(**gptq_tensors(shuffled, 4, 1), group_size=64)
    answers["without the order"] = wrong(shuffled, found.weights, None, 17)
    print(json.dumps(answers))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
