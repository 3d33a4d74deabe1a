"""Quantised KV, ALiBi and sinks: what they cost, what they refuse, and parts of their kernels."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import subprocess
import sys
from typing import Any

import interpreted_parts
import pytest
import torch

from autotune.arch import GPUS
from autotune.config import Config
from autotune.errors import UsageError
from autotune.kernels import load_kernel
from autotune.kernels.kv_quant import quantise
from autotune.kernels.paged_attention import PagedAttentionProblem
from autotune.kernels.quantisation import LARGEST_CODE, code_dtype
from autotune.kernels.spec import KernelSpec
from autotune.model_shape import PRESETS
from autotune.paths import child_environment, templates_dir
from autotune.prior import guess_us
from autotune.render import TemplateFolder

TEMPLATES = TemplateFolder(templates_dir())
KERNELS = ("paged_attention_decode", "paged_attention_prefill")
VARIANTS = ("kv_dtype=int8", "kv_dtype=int8,kv_scale=token", "kv_dtype=fp8",
            "kv_dtype=fp8,kv_scale=token", "alibi=true", "sinks=true")  # fmt: skip
TRACES = ("scale_ptr", "slopes", "sink", "_widen", "_scale_weights", "uint8", "factor = v")


def render(spec: KernelSpec[Any], problem: PagedAttentionProblem, config: Config) -> str:
    return TEMPLATES.render(spec, problem, config).source


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_is_off_leaves_no_trace(kernel: str) -> None:
    spec = load_kernel(kernel)
    problem = spec.problem_type()
    for config in spec.space(problem, GPUS["h100"]).legal[::97]:
        source = render(spec, problem, config)
        assert not [word for word in TRACES if word in source]
        assert "kv_dtype" not in source
    assert not {"fp8_decode"} & set(spec.default_config(problem, GPUS["h100"]))


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_structure_of_a_variant_renders(kernel: str, variant: str, dtype: str) -> None:
    spec = load_kernel(kernel)
    problem = spec.problem_type.parse(f"{variant},dtype={dtype},window=100,softcap=30")
    names = ("lookup", "prefetch", "tail", "value_parts", "variant", "fp8_decode")
    structures: dict[tuple[object, ...], Config] = {}
    for each in spec.space(problem, GPUS["h100"]).legal:
        structures.setdefault(tuple(each.get(name) for name in names), each)
    for each in structures.values():
        tree = ast.parse(render(spec, problem, each))
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert len(functions) == len([n for n in tree.body if isinstance(n, ast.FunctionDef)])
        arguments = [a.arg for a in functions["launch"].args.args]
        given = spec.make_inputs(problem.at(num_seqs=1, context_len=16, num_kv_heads=1,
            **({"query_len": 1} if "prefill" in kernel else {})), 0, "cpu")  # fmt: skip
        assert sorted(arguments) == sorted(given)


def test_a_scale_without_codes_is_refused() -> None:
    spec = load_kernel(KERNELS[0])
    with pytest.raises(UsageError, match="kv_scale=token needs kv_dtype=int8 or kv_dtype=fp8"):
        spec.problem_type.parse("kv_scale=token")


@pytest.mark.parametrize(
    ("gpu", "decodes"),
    [("a100", {"bits"}), ("rtx3090", {"bits"}), ("rtx4090", {"bits", "cast"}),
     ("h100", {"bits", "cast"}), ("b200", {"bits", "cast"}), ("mi300x", {"bits"})],
)  # fmt: skip
@pytest.mark.parametrize("kernel", KERNELS)
def test_fp8_is_converted_only_where_the_gpu_can(kernel: str, gpu: str, decodes: set[str]) -> None:
    spec, arch = load_kernel(kernel), GPUS[gpu]
    problem = spec.problem_type.parse("kv_dtype=fp8")
    space = spec.space(problem, arch)
    assert {config["fp8_decode"] for config in space.legal} == decodes
    default = spec.default_config(problem, arch)
    assert default in space
    assert default["fp8_decode"] == ("cast" if "cast" in decodes else "bits")


@pytest.mark.parametrize("kernel", KERNELS)
def test_bytes_are_those_of_the_cache(kernel: str) -> None:
    spec, arch = load_kernel(kernel), GPUS["h100"]
    sizes = {"num_seqs": 4, "context_len": 4096, "num_kv_heads": 2}
    if "prefill" in kernel:
        sizes["query_len"] = 1
    plain = spec.problem_type().at(**sizes)
    int8, token, fp8 = (
        dataclasses.replace(plain, kv_dtype=kind, kv_scale=scale)
        for kind, scale in (("int8", "head"), ("int8", "token"), ("fp8", "head"))
    )
    tokens = 4 * 4096 * 2  # times KV heads
    q_and_out = 2 * 4 * 2 * plain.group * 128 * 2
    assert spec.min_bytes(plain) == tokens * 2 * 128 * 2 + q_and_out
    assert spec.min_bytes(int8) == tokens * 2 * 128 + q_and_out + 2 * 2 * 4
    assert spec.min_bytes(fp8) == spec.min_bytes(int8)
    assert spec.min_bytes(token) == tokens * (2 * 128 + 2 * 4) + q_and_out
    assert spec.flops(int8) == spec.flops(token) == spec.flops(plain)
    for problem, bytes_per_token in ((plain, 512), (int8, 256), (token, 264)):
        config = spec.default_config(problem, arch)
        works = spec.work(problem, config, arch)
        assert works[0].step_bytes == config.number("tile") * bytes_per_token
        assert works[0].matrix_dtype == "bf16"
        assert sum(work.dram_bytes for work in works) >= spec.min_bytes(problem)


def test_half_the_bytes_are_expected_to_take_less_time() -> None:
    spec, arch = load_kernel(KERNELS[0]), GPUS["h100"]
    plain = spec.problem_type().at(num_seqs=64, context_len=8192)
    int8 = dataclasses.replace(plain, kv_dtype="int8")
    config = spec.default_config(plain, arch)
    guesses = [guess_us(arch, spec.work(p, config, arch), config) for p in (plain, int8)]
    assert 0.4 < guesses[1] / guesses[0] < 1.0


def test_cells_of_a_model_with_a_quantised_cache() -> None:
    shape = dataclasses.replace(PRESETS["llama-3.1-8b"], kv_dtype="fp8", kv_scale="token")
    for kernel in KERNELS:
        cells = load_kernel(kernel).problems(shape.tensor_parallel(2), "bf16", (16, 64))
        assert [cell.label("exact").split("softcap=0.0,")[1] for cell in cells] == [
            "kv_dtype=fp8,kv_scale=token"
        ] * 2


@pytest.mark.parametrize("kv_scale", ["head", "token"])
@pytest.mark.parametrize("kv_dtype", ["int8", "fp8"])
def test_quantising_loses_no_more_than_half_a_step(kv_dtype: str, kv_scale: str) -> None:
    x = torch.randn(6, 16, 3, 64, generator=torch.Generator().manual_seed(0))
    x[2, 5] *= 100.0
    x[0, 0] = 0.0
    x[5, 3:] = torch.nan
    done = quantise(x, kv_dtype, kv_scale)
    assert done.codes.dtype == code_dtype(kv_dtype)
    assert done.scales.shape == ((3,) if kv_scale == "head" else (6, 16, 3))
    written = ~x.isnan()
    scale = done.scales[..., None].expand(x.shape) if kv_scale == "token" else (
        done.scales[:, None].expand(x.shape)
    )  # fmt: skip
    codes = done.codes.float()
    error = (codes * scale - x).abs()[written]
    step = scale[written] if kv_dtype == "int8" else torch.maximum(
        x.abs()[written] / 8, scale[written] * 2.0**-9
    )  # fmt: skip
    assert bool((error <= 0.5001 * step).all())
    assert float(codes[written].abs().max()) == LARGEST_CODE[kv_dtype]
    # What nobody wrote does harm to who reads it.
    poison = codes[~written]
    assert bool(poison.isnan().all() if kv_dtype == "fp8" else (poison == -128).all())
    assert kv_scale == "head" or bool(done.scales[5, 3:].isnan().all())


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `interpreted_parts` finds, and what it was asked."""
    folder = tmp_path_factory.mktemp("parts")
    spec, orders = load_kernel(KERNELS[0]), []
    problem = spec.problem_type.parse("kv_dtype=fp8,kv_scale=token,dtype=fp16,block_size=16")
    for gpu, lookup, tile, start in (
        ("a100", "gather", 32, 16),
        ("h100", "pages", 32, 16),
        ("h100", "scalar", 16, 16),
        ("h100", "scalar", 16, 32),
    ):
        arch = GPUS[gpu]
        wanted = {**spec.default_config(problem, arch), "lookup": lookup, "tile": tile}
        config = spec.space(problem, arch).closest(wanted)
        assert (config["lookup"], config["tile"]) == (lookup, tile)
        path = folder / f"{gpu}_{lookup}.py"
        path.write_text(render(spec, problem, config) + interpreted_parts.KERNELS)
        # Scales of 2^24 and more pages of 16 tokens and 8 heads: a page is 128 of them.
        orders += [
            {"path": str(path), "table": [7, 2**24 - 1, 2**30], "start": start, "end": end,
             "stride_page": 128, "stride_token": 1, "cast": config["fp8_decode"] == "cast"}
            for end in (48, 32)
        ]  # fmt: skip
    assert [order["cast"] for order in orders] == [False] * 2 + [True] * 6
    done = subprocess.run(
        [sys.executable, interpreted_parts.__file__, json.dumps(orders), str(folder)],
        env=child_environment(TRITON_INTERPRET="1"),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return {**found, "orders": orders}


def test_offsets_of_a_pool_past_two_to_the_31(interpreted: dict[str, Any]) -> None:
    """Tokens of these pages; and of no page from the context's end on: that entry is not read."""
    pages = [0] * 16 + [2**24 - 1] * 16 + [2**30] * 16
    for order, found in zip(interpreted["orders"], interpreted["parts"], strict=True):
        tokens = range(order["start"], order["start"] + len(found["offsets"]))
        assert found["offsets"] == [
            (128 * pages[at] if at < order["end"] else 0) + at % 16 for at in tokens
        ]


def test_rows_may_lie_two_to_the_31_elements_apart(interpreted: dict[str, Any]) -> None:
    assert interpreted["differing"] == []


def test_operands_of_products_may_pass_two_to_the_31_elements(interpreted: dict[str, Any]) -> None:
    assert interpreted["wrong"] == []


def test_all_codes_of_fp8_in_the_interpreter(interpreted: dict[str, Any]) -> None:
    codes = torch.arange(256, dtype=torch.int32).to(torch.uint8).view(torch.float8_e4m3fn)
    for order, found in zip(interpreted["orders"], interpreted["parts"], strict=True):
        unit = 1.0 if order["cast"] else 256.0
        for numbers in found["numbers"]:
            for code, value in enumerate(numbers):
                expected = float(codes[code].float())
                if math.isnan(expected):
                    # Triton's interpreter, too, has 480 where the hardware has NaN.
                    assert abs(value * unit) == 480.0
                else:
                    assert value * unit == expected, code
                    assert math.copysign(1.0, value) == math.copysign(1.0, expected), code
