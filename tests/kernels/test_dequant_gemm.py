import dataclasses

import pytest
import torch

from autotune.arch import GPUS
from autotune.config import Config, KnobValue
from autotune.errors import UsageError
from autotune.kernels import load_kernel
from autotune.kernels.byte_split import dequantise, quantise, unpack
from autotune.kernels.dequant_gemm import DequantGemm
from autotune.kernels.dequant_gemm_problem import DequantGemmProblem
from autotune.model_shape import PRESETS
from autotune.paths import data_dir
from autotune.render import TemplateFolder

SPEC = DequantGemm()
W4 = DequantGemmProblem()
W8 = DequantGemmProblem(bits=8, zero_point=False)
ARCHES = ("a100", "rtx4090", "h100", "b200", "rtx5090", "mi300x")


def config(**knobs: KnobValue) -> Config:
    """A legal configuration with the given knobs, at sizes that most of them fit."""
    plain: dict[str, KnobValue] = {
        "kind": "gemm",
        "block_m": 16,
        "block_n": 64,
        "block_k": 64,
        "swap_ab": False,
    }
    plain |= {"dequant": "sub_mul", "num_warps": 4, "num_stages": 3, "weight_eviction": ""}
    return SPEC.space(W4, GPUS["h100"]).config(**{**plain, "split_k": 1, **knobs})


def test_is_in_the_table() -> None:
    assert isinstance(load_kernel("dequant_gemm"), DequantGemm)


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("cell", [W4, W8], ids=["w4", "w8"])
def test_spaces_are_worth_searching(arch: str, cell: DequantGemmProblem) -> None:
    space = SPEC.space(cell, GPUS[arch])
    assert 1_000 < len(space.binaries) < 5_000
    kinds = {(c["kind"], c.number("block_m") >= 16) for c in space.binaries}
    assert kinds == {("gemv", False), ("gemm", True), ("split_k", False), ("split_k", True)}


@pytest.mark.parametrize("arch", ARCHES)
def test_defaults_are_legal_at_every_point(arch: str) -> None:
    problems = SPEC.problems(PRESETS["llama-3.1-8b"], "bf16", ()) + SPEC.hard_problems()
    for cell in problems:
        space = SPEC.space(cell, GPUS[arch])
        for point in SPEC.points(cell):
            assert space.why_illegal(SPEC.default_config(point, GPUS[arch])) is None


def test_default_kind_follows_the_rows() -> None:
    arch = GPUS["a100"]
    kinds = [SPEC.default_config(point, arch)["kind"] for point in SPEC.points(W4)]
    assert kinds == ["gemv", "split_k", "split_k", "gemm", "gemm", "gemm"]
    assert SPEC.default_config(W4.at(m=16), arch)["split_k"] == 4  # 64 tiles for 108 SMs
    narrow = DequantGemmProblem(n=512, m=16)
    assert SPEC.default_config(narrow, arch)["split_k"] == 16


def test_every_hard_problem_has_legal_configurations_of_each_kind() -> None:
    for problem in SPEC.hard_problems():
        kinds = {c["kind"] for c in SPEC.space(problem, GPUS["a100"]).legal}
        assert kinds == {"gemv", "gemm", "split_k"}, problem.label()


@pytest.mark.parametrize(
    ("knobs", "reason"),
    [
        ({"kind": "gemv"}, "gemv sums up to 4 rows"),
        ({"block_m": 4, "kind": "gemm"}, "gemv sums up to 4 rows"),
        ({"kind": "split_k"}, "split_k has two or more ranges"),
        ({"block_n": 32, "swap_ab": True}, "gains by swapping"),
        ({"block_k": 256, "dequant": "scale_after"}, "lies in one group"),
        ({"block_m": 128, "block_n": 256, "num_warps": 2}, "16 to 128 weights"),
        ({"block_m": 64, "weight_eviction": "evict_first"}, "stay in L2"),
    ],
)
def test_illegal_configurations_say_why(knobs: dict[str, KnobValue], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        config(**knobs)


def test_scaling_after_needs_no_group_limit_when_a_column_is_one_group() -> None:
    whole = dataclasses.replace(W4, group_size=0)
    wide = {"block_k": 256, "dequant": "scale_after", "kind": "gemm"}
    for cell, expected in ((W4, False), (whole, True)):
        legal = SPEC.space(cell, GPUS["h100"]).legal
        assert any(wide.items() <= dict(c).items() for c in legal) == expected


def test_bytes_by_hand() -> None:
    # 4096 x 4096: 8 MiB of nibbles, 32 groups of scales and of zeros, x and out of 16 rows.
    assert SPEC.min_bytes(W4) == 8_388_608 + 2 * 262_144 + 4 * 16 * 4096
    assert SPEC.min_bytes(W8) == 16_777_216 + 262_144 + 4 * 16 * 4096
    assert SPEC.flops(W4) == 2 * 16 * 4096 * 4096


def test_work_of_a_split_gemm() -> None:
    problem = W4.at(m=40)
    main, reduce = SPEC.work(problem, config(kind="split_k", split_k=4), GPUS["h100"])
    weights = 8_388_608 + 2 * 262_144
    assert main.grid == 3 * 64 * 4
    assert (main.loop_steps, main.longest_steps) == (16, 16)
    assert main.flops == 2 * 48 * 4096 * 4096
    assert main.matrix_dtype == "bf16"
    assert main.dram_bytes == weights + 2 * 40 * 4096
    assert main.l2_bytes == 3 * weights + 64 * 2 * 40 * 4096 + 4 * 4 * 40 * 4096
    assert main.step_bytes == 64 * 32 + 16 * 64 * 2 + 2 * 64 * 2
    assert reduce.grid == 40 * 4096 // 512
    assert reduce.dram_bytes == 2 * 40 * 4096


def test_work_of_a_gemv_uses_no_matrix_unit() -> None:
    gemv: dict[str, KnobValue] = {
        "kind": "gemv",
        "block_m": 1,
        "block_n": 16,
        "block_k": 256,
        "dequant": "scale_after",
    }
    (main,) = SPEC.work(W4.at(m=1), config(**gemv), GPUS["h100"])
    assert main.entry == "dequant_gemv"
    assert main.matrix_dtype is None
    assert main.grid == 256
    assert main.step_bytes == 16 * 128 + 256 * 2 + 16 * 2 * 2 * 2  # two groups in 256 k's
    assert main.dram_bytes == SPEC.min_bytes(W4.at(m=1))


def test_padding_of_k_is_moved_and_multiplied() -> None:
    ragged = DequantGemmProblem(n=33, k=200, m=5, dtype="fp16")
    assert ragged.k_padded == 224
    (main,) = SPEC.work(ragged, config(), GPUS["h100"])
    assert main.grid == 1
    assert main.flops == 2 * 16 * 64 * 256
    assert main.dram_bytes == 33 * 112 + 2 * 2 * 33 * 2 + 2 * 5 * (200 + 33)


@pytest.mark.parametrize(
    ("arch", "knobs", "expected"),
    [
        ("h100", {"block_m": 64}, "wgmma"),
        ("h100", {"swap_ab": True}, "wgmma"),
        ("h100", {"block_m": 64, "num_warps": 2}, "mma"),
        ("h100", {}, "mma"),
        ("b200", {"block_m": 64}, "tcgen05"),
        ("a100", {"block_m": 64}, "mma"),
        ("rtx5090", {"swap_ab": True}, "mma"),
        ("mi300x", {}, "mfma"),
    ],
)
def test_expected_matrix_instructions(
    arch: str, knobs: dict[str, KnobValue], expected: str
) -> None:
    chosen = Config({**config(), **knobs})
    assert SPEC.expected_mma(W4, chosen, GPUS[arch]) == expected


def test_gemv_may_use_any_instruction() -> None:
    gemv = SPEC.default_config(W4.at(m=1), GPUS["h100"])
    assert SPEC.expected_mma(W4, gemv, GPUS["h100"]) is None


def test_inputs_are_poisoned() -> None:
    problem = DequantGemmProblem(dtype="fp16", n=33, k=200, m=5)
    inputs = SPEC.make_inputs(problem, 0, "cpu")
    assert bool(inputs["out"].isnan().all())
    assert bool(inputs["x"].isfinite().all())
    beyond = inputs["x"].as_strided((5, 16), inputs["x"].stride(), 200)
    assert bool(beyond.isnan().all())
    assert inputs["scales"].shape == (2, 33)
    assert bool(inputs["scales"].as_strided((4, 33), (33, 1), 2 * 33).isnan().all())
    assert {0.0, 15.0} <= set(inputs["zeros"].flatten().tolist())


def test_inputs_for_timing_have_the_same_shapes_and_no_poison() -> None:
    problem = DequantGemmProblem(dtype="fp16", n=33, k=200, m=5)
    timed, checked = SPEC.bench_inputs(problem, 0, "cpu"), SPEC.make_inputs(problem, 0, "cpu")
    assert timed.keys() == checked.keys()
    for name, tensor in timed.items():
        assert (tensor.shape, tensor.dtype) == (checked[name].shape, checked[name].dtype)
    assert all(bool(timed[name].isfinite().all()) for name in ("x", "scales", "zeros"))


def test_reference_is_the_linear_layer() -> None:
    problem = DequantGemmProblem(dtype="fp32", n=24, k=75, m=3, group_size=32)
    inputs = SPEC.make_inputs(problem, 3, "cpu")
    levels = unpack(inputs["packed"], 4, 75).double()
    scales = inputs["scales"].double().repeat_interleave(32, dim=0)[:75].T
    zeros = inputs["zeros"].double().repeat_interleave(32, dim=0)[:75].T
    expected = torch.nn.functional.linear(inputs["x"].double(), (levels - zeros) * scales)
    torch.testing.assert_close(SPEC.reference(problem, inputs), expected)


def test_reference_of_quantised_weights_is_close_to_the_weights() -> None:
    weights = torch.randn((16, 256), generator=torch.Generator().manual_seed(0))
    x = torch.randn((4, 256), generator=torch.Generator().manual_seed(1))
    stored = quantise(weights, 8, 128, zero_point=False)
    problem = DequantGemmProblem(dtype="fp32", bits=8, zero_point=False, n=16, k=256, m=4)
    inputs = {"x": x, "packed": stored.packed, "scales": stored.scales}
    exact = x.double() @ weights.double().T
    error = (SPEC.reference(problem, inputs) - exact).norm() / exact.norm()
    assert 0 < float(error) < 0.01
    torch.testing.assert_close(dequantise(stored).float(), weights, atol=0.03, rtol=0)


def test_levels_become_floats_by_their_bits() -> None:
    # The arithmetic of `_minus_zero`, on torch: exact for all levels.
    levels = torch.arange(256, dtype=torch.int16)
    half = (levels | 0x6400).view(torch.float16)
    assert torch.equal(half.double(), levels.double() + 1024)
    high = ((levels | 0x6400) & 0xFFF0 - 0x10000).view(torch.float16) * 0.0625
    assert torch.equal(high.double(), (levels >> 4).double() + 64)
    low = ((levels & 15) | 0x4300).view(torch.bfloat16)
    assert torch.equal(low.double(), (levels & 15).double() + 128)
    subnormal = (levels & 0xF0).view(torch.bfloat16) * 2.0**127
    assert torch.equal(subnormal.double(), (levels >> 4).double() / 4)


def test_source_does_not_depend_on_sizes() -> None:
    # One binary serves every N x K that the same blocks divide.
    folder = TemplateFolder(data_dir("templates"))
    one = folder.render(SPEC, W4, config())
    other = folder.render(SPEC, DequantGemmProblem(n=28672, k=8192, m=3), config())
    ragged = folder.render(SPEC, DequantGemmProblem(n=28672, k=8200), config())
    assert one.digest == other.digest
    assert one.digest != ragged.digest


def test_problems_of_a_model() -> None:
    cells = SPEC.problems(PRESETS["llama-3.1-8b"], "bf16", (16, 32))
    assert [(c.bits, c.zero_point, c.n, c.k) for c in cells] == [
        (4, True, 6144, 4096),
        (4, True, 4096, 4096),
        (4, True, 28672, 4096),
        (4, True, 4096, 14336),
        (8, False, 6144, 4096),
        (8, False, 4096, 4096),
        (8, False, 28672, 4096),
        (8, False, 4096, 14336),
    ]


def test_a_matrix_needs_elements_and_not_too_many_in_a_tile() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        DequantGemmProblem(n=0)
    with pytest.raises(UsageError, match="at most 4194304 each"):
        DequantGemmProblem(n=2**22 + 1)
    assert DequantGemmProblem(n=2**22, k=2**22).weight_bytes == 2**43
