"""Structural variants of the GEMM templates: where they are legal, and that they are right."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import partial

import pytest

from autotune.arch import GPUS
from autotune.config import Config, KnobValue
from autotune.dispatch import remembering_launch
from autotune.kernels import KERNELS, load_kernel
from autotune.kernels.amd_options import compile_options
from autotune.kernels.dequant_gemm_problem import DequantGemmProblem
from autotune.kernels.fused_mlp_problem import FusedMlpProblem
from autotune.paths import cache_dir, templates_dir
from autotune.pool import WorkerPool
from autotune.problem import Problem
from autotune.records import Status
from autotune.render import TemplateFolder, import_file
from autotune.verify import Case, verify_in

W4 = DequantGemmProblem()
GATE_UP = FusedMlpProblem()
DOWN = FusedMlpProblem("bf16", "down", "none", False, 4096, 14336)
TEMPLATES = TemplateFolder(templates_dir())


def legal_values(problem: Problem, gpu: str) -> dict[str, set[KnobValue]]:
    """Values of each variant that are legal with some ordinary configuration."""
    space = load_kernel(problem.kernel).space(problem, GPUS[gpu])
    found: dict[str, set[KnobValue]] = {knob.name: set() for knob in space.variants}
    loads = ("pointer", "descriptor") if "load" in space.plain else (None,)
    some = space.legal[::5]
    tries = [(k, v, load) for k in space.variants for v in k.values for load in loads]
    for knob, value, load in tries:
        odd = {} if load is None else {"load": load}
        if any(space.why_illegal({**c, **odd, knob.name: value}) is None for c in some):
            found[knob.name].add(value)
    return found


@pytest.mark.parametrize("problem", [W4, GATE_UP, DOWN], ids=lambda p: p.label("exact"))
@pytest.mark.parametrize("gpu", ["a100", "h100", "mi300x"])
def test_ordinary_searches_see_no_variant(problem: Problem, gpu: str) -> None:
    space = load_kernel(problem.kernel).space(problem, GPUS[gpu])
    assert not any(set(space.plain) & set(config) for config in space.legal)


@pytest.mark.parametrize(
    ("gpu", "atomic", "descriptor"),
    [
        ("a100", False, False),  # bf16
        ("l4", False, False),
        ("h100", True, True),
        ("b200", True, True),
        ("rtx5090", True, True),
        ("mi300x", True, False),
    ],
)
def test_where_variants_are_legal(gpu: str, atomic: bool, descriptor: bool) -> None:
    assert ("atomic" in legal_values(W4, gpu)["reduction"]) == atomic
    assert ("atomic" in legal_values(DOWN, gpu)["reduction"]) == atomic
    found = legal_values(GATE_UP, gpu)
    assert ("descriptor" in found["load"]) == descriptor
    assert (True in found["flatten"]) == descriptor
    assert ("waves_per_eu" in found) == (gpu == "mi300x")


def test_fp16_adds_atomically_everywhere() -> None:
    half = dataclasses.replace(W4, dtype="fp16")
    assert "atomic" in legal_values(half, "a100")["reduction"]


def test_sums_of_16_bits_are_not_added_one_by_one() -> None:
    for dtype, expected in (("fp16", {32, 64, 16}), ("fp32", {1, 4, 16, 32, 64})):
        space = load_kernel("dequant_gemm").space(
            dataclasses.replace(W4, dtype=dtype), GPUS["h100"]
        )
        atomic = [c for c in space.widened.legal if c["reduction"] == "atomic"]
        assert {c["block_m"] for c in atomic} == expected


@pytest.mark.parametrize("problem", [W4, DOWN], ids=lambda p: p.kernel)
@pytest.mark.parametrize(("dtype", "n", "legal"), [
    ("fp16", 4096, True), ("fp16", 4112, True), ("bf16", 4098, False), ("fp16", 4104, False),
    ("fp16", 4095, False), ("fp32", 4095, True),
])  # fmt: skip
def test_sums_of_16_bits_need_rows_that_begin_at_pairs(
    problem: Problem, dtype: str, n: int, legal: bool
) -> None:
    some = type(problem).from_axes({**problem.exact_axes(), "dtype": dtype, "n": n})
    assert ("atomic" in legal_values(some, "h100")["reduction"]) == legal


def test_descriptors_need_aligned_rows_and_two_tiles() -> None:
    odd = dataclasses.replace(GATE_UP, k=4100)
    assert legal_values(odd, "h100")["load"] == {"pointer"}
    space = load_kernel("fused_mlp").space(GATE_UP, GPUS["h100"]).widened
    described = [c for c in space.legal if c["load"] == "descriptor"]
    assert {c["gate_layout"] for c in described} == {"two_dots"}
    assert {c["schedule"] for c in described if c["flatten"]} == {"persistent"}


def test_amd_options_reach_the_module() -> None:
    arch = GPUS["mi300x"]
    for name in KERNELS:
        spec = load_kernel(name)
        space = spec.space(spec.problem_type(), arch)
        if "kpack" not in space.plain:
            continue
        config = spec.default_config(spec.problem_type(), arch)
        odd = Config({**config, "kpack": 2, "waves_per_eu": 2})
        plain, source = (
            TEMPLATES.render(spec, spec.problem_type(), c).source for c in (config, odd)
        )
        assert compile_options(odd) == {"kpack": 2, "waves_per_eu": 2}
        assert source.replace('"', "'").count("'waves_per_eu': 2, 'kpack': 2}") == 1
        assert "kpack" not in plain.split("\n", 4)[4]
        zero = config.replace(kpack=1, waves_per_eu=0)
        assert (
            TEMPLATES.render(spec, spec.problem_type(), zero).source.split("\n", 4)[4]
            == (plain.split("\n", 4)[4])
        )


def first(problem: Problem, gpu: str, wanted: Mapping[str, KnobValue]) -> Case:
    """The first configuration with these values, of the smallest tiles."""
    spec = load_kernel(problem.kernel)
    space = spec.space(problem, GPUS[gpu])
    odd = {name: value for name, value in wanted.items() if name in space.plain}
    usual = {name: value for name, value in wanted.items() if name not in odd}.items()
    found = next(
        config
        for config in space.legal
        if usual <= dict(config).items() and space.why_illegal({**config, **odd}) is None
    )
    return Case(spec, problem, space.stored(Config({**found, **odd})))


def sizes_that_nothing_divides(m: int, n: int, k: int) -> list[Case]:
    """Each variant on few rows and more, and on none."""
    cases: list[Case] = []
    gate_up = FusedMlpProblem("fp16", "gate_up", "silu", False, n, k, m)
    tile = {"load": "descriptor", "block_m": 64, "block_k": 32}
    cases.append(first(gate_up, "h100", {**tile, "schedule": "tiles", "swap_ab": True}))
    cases.append(first(gate_up, "h100", {**tile, "schedule": "persistent", "flatten": True}))
    for residual in (False, True):
        down = FusedMlpProblem("fp16", "down", "none", residual, n, k, m)
        pairs = dataclasses.replace(down, n=math.ceil(n / 16) * 16)
        split = {"variant": "split_k", "num_splits": 4, "block_m": 16, "block_k": 32}
        atomic = {**split, "reduction": "atomic"}
        cases.append(first(pairs, "h100", {**atomic, "load": "pointer", "swap_ab": residual}))
        cases.append(first(down, "h100", {**split, "load": "descriptor"}))
    for layout in ("byte_split", "gptq_i32"):
        w4 = DequantGemmProblem("fp16", 4, 32, True, math.ceil(n / 16) * 16, k, m, layout)
        atomic = {"kind": "split_k", "split_k": 4, "reduction": "atomic"}
        cases.append(first(w4, "a100", {**atomic, "block_m": 16, "block_k": 32}))
        # Sums take four rows and 16 columns at a time.
        sums = dataclasses.replace(w4, dtype="fp32", n=min(n, 33), m=min(m, 5))
        cases.append(first(sums, "a100", {**atomic, "block_m": 4}))
    return cases


def words_that_are_not_full() -> list[Case]:
    cases = []
    for k, swap in ((203, True), (130, False)):
        words = DequantGemmProblem("fp32", 4, 64, False, 72, k, 17, "gptq_i32")
        cases.append(first(words, "a100", {"swap_ab": swap, "block_m": 16, "block_k": 128}))
    return cases


CASES = {
    "no rows": partial(sizes_that_nothing_divides, 0, 40, 64),
    "one row": partial(sizes_that_nothing_divides, 1, 40, 40),
    "17 rows": partial(sizes_that_nothing_divides, 17, 129, 72),
    "words": words_that_are_not_full,
}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def variant_cases(request: pytest.FixtureRequest) -> list[Case]:
    found: list[Case] = request.param()
    return found


def test_variants_compute_the_same(interpreter: WorkerPool, variant_cases: list[Case]) -> None:
    verdicts = list(verify_in(interpreter, variant_cases, TEMPLATES, cache_dir(), 2, "cpu"))
    assert len(verdicts) == len(variant_cases) >= 2
    failed = [
        f"{v.case.problem.label()} | {v.case.config}: {v.status} {v.reason}"
        for v in verdicts
        if v.status is not Status.OK
    ]
    assert not failed, "\n".join(failed)


def test_launches_that_fill_their_output_say_so(variant_cases: list[Case]) -> None:
    for case in variant_cases:
        atomic = case.config.get("reduction") == "atomic"
        source = TEMPLATES.render(case.spec, case.problem, case.config).source
        assert ("FILLS_OUTPUT = True" in source) == atomic


def test_launches_that_fill_their_output_are_not_repeated_from_memory() -> None:
    half = dataclasses.replace(W4, dtype="fp16")
    for reduction, remembered in (("atomic", False), ("workspace", True)):
        case = first(half, "a100", {"kind": "split_k", "block_m": 16, "reduction": reduction})
        rendered = TEMPLATES.render(case.spec, case.problem, case.config)
        module = import_file(rendered.write(cache_dir()))
        own = module.launch
        assert (remembering_launch(module) is not own) == remembered
