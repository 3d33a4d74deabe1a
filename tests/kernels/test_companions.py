"""The companion kernels beyond `verify`: roundings, odd rows, aliases, counts, searches."""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import companion_checks
import pytest
import torch

from autotune.arch import GPUS, lookup
from autotune.cli.cells import add_cell_arguments, chosen_cells
from autotune.errors import UsageError
from autotune.kernels import COMPANIONS, load_kernel, searched_kernels
from autotune.kernels.quantize_per_token import QuantizeProblem
from autotune.kernels.rms_norm import RmsNormProblem
from autotune.kernels.rope_kv_write_problem import RopeProblem
from autotune.model_shape import PRESETS

ROOT = Path(__file__).resolve().parents[2]
CHECKS = [check.__name__ for check in companion_checks.CHECKS]


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "PYTHONPATH": str(ROOT),
        "AUTOTUNE_CACHE": str(tmp_path_factory.mktemp("companions") / "cache"),
    }
    done = subprocess.run(
        [sys.executable, str(Path(companion_checks.__file__))],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str | None] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("check", CHECKS)
def test_in_the_interpreter(verdicts: dict[str, str | None], check: str) -> None:
    assert verdicts[check] is None, verdicts[check]


def test_searches_take_companions_only_by_name() -> None:
    parser = argparse.ArgumentParser()
    add_cell_arguments(parser)
    _, cells = chosen_cells(parser.parse_args([]), lookup("a100"))
    assert {cell.spec.name for cell in cells} == set(searched_kernels())
    assert not set(searched_kernels()) & set(COMPANIONS)
    words = [word for name in COMPANIONS for word in ("--kernel", name)]
    _, cells = chosen_cells(parser.parse_args(words), lookup("a100"))
    assert {cell.spec.name for cell in cells} == set(COMPANIONS)


@pytest.mark.parametrize("name", COMPANIONS)
@pytest.mark.parametrize("gpu", ["a100", "rtx5090", "mi300x"])
def test_spaces_are_small_and_serve_every_size(name: str, gpu: str) -> None:
    spec, arch = load_kernel(name), GPUS[gpu]
    for problem in (spec.problem_type(), *spec.hard_problems()):
        space = spec.space(problem, arch)
        assert spec.default_config(problem, arch) in space
        assert 2 <= len(space.legal) <= 60
    for columns in (16_384, 20_000, 131_072):
        if name == "rope_kv_write":
            break
        wide: Any = spec.problem_type.from_axes({"columns": columns})
        assert spec.default_config(wide, arch) in spec.space(wide, arch)


def test_bytes_are_counted_once() -> None:
    norm = RmsNormProblem(columns=4096, residual=True, rows=64)
    assert load_kernel("rms_norm").min_bytes(norm) == 4 * 64 * 8192 + 8192
    coded = RmsNormProblem(columns=4096, quantised="int8", wide_weight=True, rows=64)
    assert load_kernel("rms_norm").min_bytes(coded) == 64 * (3 * 4096 + 4) + 4 * 4096
    tokens = QuantizeProblem(columns=4096, rows=64)
    assert load_kernel("quantize_per_token").min_bytes(tokens) == 64 * (3 * 4096 + 4)
    spec = load_kernel("rope_kv_write")
    heads = RopeProblem(num_tokens=10)
    assert spec.min_bytes(heads) == 10 * (2 * 2 * (32 + 16) * 128 + 2 * 128 + 16)
    coded_heads = RopeProblem(kv_dtype="int8", kv_scale="token", num_tokens=10)
    own = 2 * 2 * 32 * 128 + 3 * 16 * 128 + 4 * 16 + 2 * 128 + 16
    assert spec.min_bytes(coded_heads) == 10 * own


@pytest.mark.parametrize(
    ("kind", "axes", "words"),
    [
        (RopeProblem, {"style": "none", "unrotated": 8}, "unrotated=8"),
        (RopeProblem, {"unrotated": 128}, "below head_dim=128"),
        (RopeProblem, {"unrotated": 3}, "even"),
        (RopeProblem, {"kv_dtype": "int8"}, "kv_scale=head or token"),
        (RopeProblem, {"kv_scale": "head"}, "kv_scale=none"),
        (RmsNormProblem, {"columns": 0}, "columns"),
        (QuantizeProblem, {"columns": 0}, "columns"),
    ],
)
def test_problems_that_mean_nothing(kind: Any, axes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        kind.from_axes(axes)


def test_the_reference_turns_pairs_by_the_formula() -> None:
    spec = load_kernel("rope_kv_write")
    for style in ("half", "interleaved"):
        problem = RopeProblem(
            "fp32", style=style, head_dim=12, unrotated=4, num_heads=1, num_kv_heads=1, num_tokens=3
        )
        inputs = spec.make_inputs(problem, 0, "cpu")
        queries = spec.reference(problem, inputs)[:3]
        for token in range(3):
            cos, sin = inputs["table"][inputs["positions"][token]].double()
            x = inputs["q"][token, 0].double()
            for pair in range(4):
                i, j = (pair, pair + 4) if style == "half" else (2 * pair, 2 * pair + 1)
                wanted = (
                    x[i] * cos[pair] - x[j] * sin[pair],
                    x[j] * cos[pair] + x[i] * sin[pair],
                )
                assert torch.allclose(queries[token, [i, j]], torch.stack(wanted))
            assert torch.equal(queries[token, 8:], x[8:])


@pytest.mark.parametrize("name", COMPANIONS)
def test_bench_inputs_are_clean_and_give_the_reference_its_shape(name: str) -> None:
    spec = load_kernel(name)
    for problem in spec.hard_problems():
        if 0 in problem.nearest_axes().values():
            continue
        inputs = spec.bench_inputs(problem, 0, "cpu")
        reference = spec.reference(problem, inputs)
        assert spec.values(problem, inputs, inputs["out"]).shape == reference.shape
        given = spec.make_inputs(problem, 0, "cpu")
        assert given.keys() == inputs.keys()
        assert all(
            inputs[key].isfinite().all() for key in ("x", "q", "k", "v", "table") if key in inputs
        )
        wrong = spec.values(problem, given, given["out"]).double()
        rows = math.prod(problem.nearest_axes().values())
        assert rows == 0 or not torch.equal(wrong, spec.reference(problem, given)), "poisoned"


def test_models_need_their_sizes() -> None:
    shape = PRESETS["llama-3.1-8b"]
    (rope,) = load_kernel("rope_kv_write").problems(shape, "bf16", (16, 32))
    assert (rope.head_dim, rope.num_heads, rope.num_kv_heads) == (128, 32, 8)
    norms = load_kernel("rms_norm").problems(shape, "bf16", (16,))
    assert {(cell.columns, cell.residual) for cell in norms} == {(4096, False), (4096, True)}
    tokens = load_kernel("quantize_per_token").problems(shape, "fp16", (16,))
    assert {(cell.codes, cell.columns) for cell in tokens} == {
        (codes, width) for codes in ("int8", "fp8") for width in (4096, 14336)
    }
