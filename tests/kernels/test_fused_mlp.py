"""The fused MLP's space, counts and reference, against numbers worked out by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from autotune.arch import GPUS, GpuArch
from autotune.config import Config, KnobValue
from autotune.correctness import errors_of
from autotune.errors import UnknownChoiceError, UsageError
from autotune.kernels import load_kernel
from autotune.kernels.fused_mlp import FusedMlp
from autotune.kernels.fused_mlp_problem import FusedMlpProblem
from autotune.kernels.fused_mlp_space import pipeline_bytes
from autotune.model_shape import PRESETS
from autotune.render import TemplateFolder

SPEC = FusedMlp()
GATE_UP = FusedMlpProblem()
DOWN = FusedMlpProblem(part="down", activation="none", n=4096, k=14336)
TEMPLATES = TemplateFolder(Path(__file__).parents[2] / "templates")
TARGETS = {arch.target: arch for arch in GPUS.values()}
EVERY_ARCH = pytest.mark.parametrize("arch", TARGETS.values(), ids=TARGETS)


def _config(problem: FusedMlpProblem, **changes: Any) -> Config:
    base: dict[str, KnobValue] = {
        "block_m": 128,
        "block_n": 64,
        "block_k": 64,
        "num_warps": 8,
        "num_stages": 3,
        "swap_ab": False,
        "schedule": "tiles",
        "group_m": 8,
    }
    own: dict[str, KnobValue] = (
        {"gate_layout": "two_dots"} if problem.gated else {"variant": "plain", "num_splits": 1}
    )
    return Config(base | own | changes)


def test_is_in_the_table_of_kernels() -> None:
    assert isinstance(load_kernel("fused_mlp"), FusedMlp)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"part": "down"}, "part=down with activation=silu: use none"),
        ({"activation": "none"}, "part=gate_up with activation=none"),
        ({"residual": True}, "part=down only"),
        ({"n": 0}, "n=0"),
        ({"k": 2**22 + 1}, "n=14336, k=4194305: at most 4194304 each"),
    ],
)
def test_meaningless_problems_are_refused(axes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FusedMlpProblem.from_axes(axes)


def test_unknown_activation_lists_the_choices() -> None:
    with pytest.raises(UnknownChoiceError, match="gelu_tanh"):
        FusedMlpProblem(activation="relu")


@EVERY_ARCH
@pytest.mark.parametrize("cell", [GATE_UP, DOWN], ids=["gate_up", "down"])
def test_space_is_worth_searching_and_fits_the_gpu(cell: FusedMlpProblem, arch: GpuArch) -> None:
    space = SPEC.space(cell, arch)
    assert 500 <= len(space.binaries) <= 1500
    threads = arch.warp_size
    for config in space.binaries:
        assert pipeline_bytes(cell, config, arch) <= arch.shared_bytes_per_block
        accumulators = config.number("block_m") * config.number("block_n") * cell.halves
        assert accumulators / (threads * config.number("num_warps")) <= (
            256 if arch.vendor == "amd" else 128
        )


@EVERY_ARCH
def test_default_is_legal_at_every_point(arch: GpuArch) -> None:
    for cell in (GATE_UP, DOWN):
        space = SPEC.space(cell, arch)
        for problem in SPEC.points(cell):
            assert space.why_illegal(SPEC.default_config(problem, arch)) is None


@pytest.mark.parametrize("problem", SPEC.hard_problems(), ids=lambda problem: problem.label())
def test_default_is_legal_for_hard_problems(problem: FusedMlpProblem) -> None:
    config = SPEC.default_config(problem, GPUS["a100"])
    assert SPEC.space(problem, GPUS["a100"]).why_illegal(config) is None


def test_default_splits_k_only_where_tiles_are_few() -> None:
    h100 = GPUS["h100"]
    assert SPEC.default_config(DOWN.at(m=1), h100)["num_splits"] == 2  # 64 tiles for 132 SMs
    assert SPEC.default_config(DOWN.at(m=4096), h100)["variant"] == "plain"
    wide = dataclasses.replace(DOWN, n=16384, m=1)
    assert SPEC.default_config(wide, h100)["variant"] == "plain"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"block_m": 256, "block_n": 128}, "accumulators"),
        ({"block_m": 16, "block_n": 32}, "matrix instruction"),
        ({"block_k": 128, "num_stages": 5}, "shared memory"),
        ({"swap_ab": True}, "swapped for few tokens"),
        ({"block_m": 32, "schedule": "persistent"}, "loop over tiles"),
    ],
)
def test_illegal_gate_up_configs_say_why(changes: dict[str, Any], reason: str) -> None:
    found = SPEC.space(GATE_UP, GPUS["a100"]).why_illegal(_config(GATE_UP, **changes))
    assert found is not None
    assert reason in found


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_splits": 2}, "one range"),
        ({"variant": "split_k"}, "one range"),
        ({"variant": "split_k", "num_splits": 2, "schedule": "persistent"}, "few tiles"),
    ],
)
def test_illegal_down_configs_say_why(changes: dict[str, Any], reason: str) -> None:
    found = SPEC.space(DOWN, GPUS["a100"]).why_illegal(_config(DOWN, **changes))
    assert found is not None
    assert reason in found


def test_asynchronous_matrix_units_hold_one_more_buffer() -> None:
    config = _config(GATE_UP)
    tiles = (128 + 2 * 64) * 64 * 2
    assert pipeline_bytes(GATE_UP, config, GPUS["a100"]) == 2 * tiles
    assert pipeline_bytes(GATE_UP, config, GPUS["h100"]) == 3 * tiles


@pytest.mark.parametrize(
    ("gpu", "changes", "expected"),
    [
        ("a100", {}, "mma"),
        ("h100", {}, "wgmma"),
        ("h100", {"block_m": 32}, "mma"),
        ("h100", {"block_m": 16, "swap_ab": True}, "wgmma"),
        ("h100", {"block_m": 16, "block_n": 32, "swap_ab": True}, "mma"),
        (
            "h100",
            {"block_m": 16, "block_n": 32, "swap_ab": True, "gate_layout": "interleaved"},
            "wgmma",
        ),
        ("b200", {}, "tcgen05"),
        ("rtx5090", {}, "mma"),
        ("mi300x", {}, "mfma"),
    ],
)
def test_expected_matrix_instructions(gpu: str, changes: dict[str, Any], expected: str) -> None:
    assert SPEC.expected_mma(GATE_UP, _config(GATE_UP, **changes), GPUS[gpu]) == expected


def test_fp32_may_use_any_unit() -> None:
    problem = FusedMlpProblem(dtype="fp32")
    assert SPEC.expected_mma(problem, _config(problem), GPUS["h100"]) is None


def test_work_of_gate_up_counts_padding_and_rereads() -> None:
    problem = FusedMlpProblem(n=100, k=130, m=130)
    (work,) = SPEC.work(problem, _config(problem), GPUS["h100"])
    assert (work.entry, work.grid) == ("fused_mlp_gate_up", 4)  # 2 x 2 tiles
    assert (work.loop_steps, work.longest_steps) == (3, 3)
    assert work.flops == 2 * (2 * 128) * (2 * 2 * 64) * (3 * 64)
    assert work.step_bytes == (128 + 2 * 64) * 64 * 2
    assert work.dram_bytes == 2 * (130 * 130 + 200 * 130 + 130 * 100)
    assert work.l2_bytes == 2 * (4 * (128 + 2 * 64) * 130 + 130 * 100)


def test_persistent_work_spreads_tiles_over_sms() -> None:
    problem = GATE_UP.at(m=1024)
    h100 = GPUS["h100"]
    (work,) = SPEC.work(problem, _config(problem, schedule="persistent"), h100)
    tiles, steps = 8 * 224, 64
    assert work.grid == h100.sm_count
    assert work.loop_steps == tiles * steps / h100.sm_count
    assert work.longest_steps == 14 * steps  # 1792 tiles over 132 SMs: some run 14


def test_split_work_adds_a_reduction() -> None:
    problem = dataclasses.replace(DOWN, residual=True, m=16)
    config = _config(problem, block_m=16, variant="split_k", num_splits=8)
    main, reduce = SPEC.work(problem, config, GPUS["h100"])
    outputs = 16 * 4096
    assert (main.entry, main.grid) == ("fused_mlp_down_split", 64 * 8)
    assert (main.loop_steps, main.longest_steps) == (28, 28)
    assert main.dram_bytes == 2 * (16 + 4096) * 14336  # partial sums stay in L2
    assert (reduce.entry, reduce.grid) == ("fused_mlp_down_reduce", outputs // 512)
    assert reduce.dram_bytes == 2 * 2 * outputs
    assert reduce.l2_bytes == 8 * 4 * outputs + 2 * 2 * outputs


def test_partial_sums_beyond_l2_reach_memory() -> None:
    problem = DOWN.at(m=4096)
    config = _config(problem, variant="split_k", num_splits=2)
    main, reduce = SPEC.work(problem, config, GPUS["h100"])
    partial = 2 * 4 * 4096 * 4096
    assert main.dram_bytes == problem.operand_bytes + partial
    assert reduce.dram_bytes == partial + problem.output_bytes


def test_floor_counts_each_byte_and_product_once() -> None:
    problem = GATE_UP.at(m=64)
    assert SPEC.flops(problem) == 4 * 64 * 14336 * 4096
    assert SPEC.min_bytes(problem) == 2 * (2 * 14336 * 4096 + 64 * 4096 + 64 * 14336)
    down = dataclasses.replace(DOWN, residual=True, m=64)
    assert SPEC.flops(down) == 2 * 64 * 14336 * 4096
    assert SPEC.min_bytes(down) == 2 * (14336 * 4096 + 64 * 14336 + 2 * 64 * 4096)
    assert SPEC.min_bytes(GATE_UP.at(m=0)) == 0


def test_models_need_both_parts_with_their_activation() -> None:
    gate_up, down = SPEC.problems(PRESETS["gemma-2-9b"].tensor_parallel(2), "fp16", (16,))
    assert (gate_up.activation, gate_up.n, gate_up.k) == ("gelu_tanh", 7168, 3584)
    assert (down.activation, down.n, down.k, down.residual) == ("none", 3584, 7168, False)
    ungated = dataclasses.replace(PRESETS["llama-3.1-8b"], gated=False)
    assert [cell.part for cell in SPEC.problems(ungated, "bf16", (16,))] == ["down"]


def test_hard_problems_cover_every_variant() -> None:
    problems = SPEC.hard_problems()
    assert len(problems) <= 36
    assert {p.activation for p in problems} == {"silu", "gelu_tanh", "gelu", "none"}
    assert {p.m for p in problems} >= {0, 1, 3, 17, 65}
    assert {p.residual for p in problems} == {False, True}
    assert any(p.k % 32 for p in problems)


def test_inputs_lie_between_nans_and_repeat_by_seed() -> None:
    problem = FusedMlpProblem("fp32", "down", "none", True, 5, 7, 3)
    inputs = SPEC.make_inputs(problem, 0, "cpu")
    assert inputs["out"].isnan().all()
    for name, shape in (("x", (3, 7)), ("weight", (5, 7)), ("residual", (3, 5))):
        tensor = inputs[name]
        assert tensor.shape == shape
        assert tensor.is_contiguous()
        assert tensor.isfinite().all()
        assert tensor.data_ptr() % 16 == 0
        whole = torch.as_strided(tensor, (tensor.numel() + 128,), (1,), 0)
        assert whole[:64].isnan().all()
        assert whole[-64:].isnan().all()
    again = SPEC.make_inputs(problem, 0, "cpu")
    assert torch.equal(inputs["weight"], again["weight"])


def test_bench_inputs_are_clean_and_shaped_alike() -> None:
    problem = FusedMlpProblem("fp16", "down", "none", True, 40, 33, 3)
    poisoned, clean = SPEC.make_inputs(problem, 0, "cpu"), SPEC.bench_inputs(problem, 0, "cpu")
    assert clean.keys() == poisoned.keys()
    for name in ("out", "x", "weight", "residual"):
        assert clean[name].shape == poisoned[name].shape
        assert clean[name].dtype == poisoned[name].dtype
    assert clean["weight"].isfinite().all()


def test_loud_gates_reach_the_overflow_of_exp() -> None:
    problem = FusedMlpProblem("fp16", "gate_up", "silu", False, 129, 100, 17)
    inputs = SPEC.make_inputs(problem, 1, "cpu")
    gates = inputs["x"].double() @ inputs["weight"][:129].double().T
    assert gates.min() < -88
    assert SPEC.reference(problem, inputs).abs().max() < torch.finfo(torch.float16).max


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh", "gelu"])
def test_reference_agrees_with_the_formula(activation: str) -> None:
    problem = FusedMlpProblem("fp32", "gate_up", activation, False, 6, 10, 4)
    inputs = SPEC.make_inputs(problem, 0, "cpu")
    x, weight = inputs["x"].double(), inputs["weight"].double()
    gate, up = (x @ half.T for half in weight.split(6))
    share = {
        "silu": 1 / (1 + torch.exp(-gate)),
        "gelu_tanh": (1 + torch.tanh((2 / torch.pi) ** 0.5 * (gate + 0.044715 * gate**3))) / 2,
        "gelu": (1 + torch.erf(gate / 2**0.5)) / 2,
    }[activation]
    expected = gate * share * up
    assert errors_of(SPEC.reference(problem, inputs), expected).within(SPEC.tolerance(problem))


def test_reference_adds_the_residual() -> None:
    problem = FusedMlpProblem("fp32", "down", "none", True, 6, 10, 4)
    inputs = SPEC.make_inputs(problem, 0, "cpu")
    expected = torch.addmm(
        inputs["residual"].double(), inputs["x"].double(), inputs["weight"].double().T
    )
    assert torch.allclose(SPEC.reference(problem, inputs), expected)


def test_one_source_serves_all_sizes_that_block_k_divides() -> None:
    config = _config(GATE_UP)
    same = TEMPLATES.render(SPEC, dataclasses.replace(GATE_UP, n=8192, k=3072, m=1), config)
    other = TEMPLATES.render(SPEC, dataclasses.replace(GATE_UP, k=4112), config)
    digest = TEMPLATES.render(SPEC, GATE_UP, config).digest
    assert same.digest == digest
    assert other.digest != digest
    assert "EVEN_K = tl.constexpr(False)" in other.source


def test_odd_sizes_are_not_promised_to_be_aligned() -> None:
    problem = dataclasses.replace(GATE_UP, n=129, k=100)
    config = _config(problem)
    assert SPEC.template_values(problem, config)["unaligned"] == ["m", "group_m", "n", "k"]
    assert SPEC.template_values(GATE_UP, config)["unaligned"] == ["m", "group_m"]


@pytest.mark.parametrize("problem", SPEC.hard_problems(), ids=lambda problem: problem.label())
def test_every_variant_renders_to_python(problem: FusedMlpProblem) -> None:
    space = SPEC.space(problem, GPUS["h100"])
    for config in space.legal[:: max(1, len(space.legal) // 12)]:
        source = TEMPLATES.render(SPEC, problem, config).source
        compile(source, "rendered", "exec")
