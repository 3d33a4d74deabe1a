"""What every prediction must obey, whatever its coefficients are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_cases import make_report, make_work

from autotune.arch import GPUS, GpuArch, lookup
from autotune.config import Config
from autotune.cost_model import TERMS, CostModel
from autotune.kernels import KERNELS, load_kernel
from autotune.kernels.paged_attention_decode import PagedAttentionDecode
from autotune.kernels.paged_attention_decode_problem import DecodeProblem
from autotune.kernels.spec import KernelSpec, Work
from autotune.prior import guess_us
from autotune.problem import Problem
from autotune.records import CompileReport

gpus = st.sampled_from(list(GPUS.values()))
works = st.builds(
    make_work,
    grid=st.integers(1, 100_000),
    loop_steps=st.floats(0, 1e4),
    longest_steps=st.floats(0, 1e4),
    flops=st.floats(0, 1e15),
    matrix_dtype=st.sampled_from(["bf16", "fp8", "int8", None]),
    dram_bytes=st.floats(1, 1e11),
    l2_bytes=st.floats(0, 1e12),
    step_bytes=st.floats(16, 1e6),
)
reports = st.builds(
    make_report,
    registers=st.integers(16, 255),
    shared_bytes=st.integers(0, 64 * 1024),
    num_warps=st.sampled_from([1, 2, 4, 8]),
    num_stages=st.integers(1, 5),
    mma=st.sampled_from(["mma", "wgmma", "tcgen05", "mfma", None]),
    loop=st.dictionaries(
        st.sampled_from(["mma", "async_copy", "load_shared", "float"]), st.integers(0, 500)
    ),
)
factors = st.floats(1, 100)

Rate = Callable[[KernelSpec[Any], Problem, Config, GpuArch], float]


def predict_us(arch: GpuArch, work: Work, report: CompileReport) -> float:
    return CostModel(arch).predict([work], [report]).time_us


def test_terms_have_names() -> None:
    prediction = CostModel(lookup("a100")).predict([make_work()], [make_report()])
    assert len(prediction.terms_us) == len(TERMS)
    assert prediction.terms_us[TERMS.index(prediction.bound)] == max(prediction.terms_us)


@given(gpus, works, reports)
def test_no_prediction_beats_the_floor(arch: GpuArch, work: Work, report: CompileReport) -> None:
    dtype = work.matrix_dtype or "fp32"
    floor_us = CostModel(arch).floor_us(work.flops, work.dram_bytes, dtype)
    assert predict_us(arch, work, report) >= floor_us


@given(gpus, works, reports)
def test_no_prediction_beats_one_of_its_terms(
    arch: GpuArch, work: Work, report: CompileReport
) -> None:
    prediction = CostModel(arch).predict([work], [report])
    assert prediction.time_us >= max(prediction.terms_us)
    assert min(prediction.terms_us) >= 0


@pytest.mark.parametrize(
    "count", ["dram_bytes", "l2_bytes", "flops", "loop_steps", "longest_steps", "step_bytes"]
)
@given(gpus, works, reports, factors)
def test_more_work_is_never_faster(
    count: str, arch: GpuArch, work: Work, report: CompileReport, factor: float
) -> None:
    more: Any = {count: getattr(work, count) * factor}
    heavier = dataclasses.replace(work, **more)
    assert predict_us(arch, heavier, report) >= predict_us(arch, work, report) * (1 - 1e-12)


@pytest.mark.parametrize("rate", ["dram_gbs", "clock_mhz"])
@given(gpus, works, reports, factors)
def test_a_slower_gpu_is_never_faster(
    rate: str, arch: GpuArch, work: Work, report: CompileReport, factor: float
) -> None:
    slower: Any = {rate: getattr(arch, rate) / factor}
    before, after = (
        predict_us(gpu, work, report) for gpu in (arch, dataclasses.replace(arch, **slower))
    )
    assert after >= before * (1 - 1e-12)


@given(gpus, works, reports)
def test_programs_on_idle_sms_are_never_slower(
    arch: GpuArch, work: Work, report: CompileReport
) -> None:
    few = dataclasses.replace(work, grid=1 + work.grid % (arch.sm_count // 2))
    spread = dataclasses.replace(
        few,
        grid=2 * few.grid,
        loop_steps=few.loop_steps / 2,
        longest_steps=few.longest_steps / 2,
    )
    assert predict_us(arch, spread, report) <= predict_us(arch, few, report) * (1 + 1e-12)


@given(gpus, works, reports)
def test_predictions_repeat(arch: GpuArch, work: Work, report: CompileReport) -> None:
    assert CostModel(arch).predict([work], [report]) == CostModel(arch).predict([work], [report])


def test_entry_points_add_up() -> None:
    model = CostModel(lookup("h100"))
    main, merge = make_work(), make_work(entry="merge", dram_bytes=1e6)
    one, other = make_report(), make_report(entry="merge")
    both = model.predict([main, merge], [one, other])
    parts = [model.predict([main], [one]), model.predict([merge], [other])]
    assert both.time_us == sum(part.time_us for part in parts)
    assert both.terms_us == parts[0].terms_us


@pytest.mark.parametrize("entries", [["other"], [], ["main", "main"], ["merge", "main"]])
def test_works_and_reports_have_to_match(entries: list[str]) -> None:
    works = [make_work(entry=entry) for entry in entries]
    with pytest.raises(AssertionError, match="works and reports differ"):
        CostModel(lookup("a100")).predict(works, [make_report()])


def predict_config_us(
    spec: KernelSpec[Any], problem: Problem, config: Config, arch: GpuArch
) -> float:
    """Prediction for a configuration that compiled to unremarkable facts."""
    works = spec.work(problem, config, arch)
    reports = [
        make_report(
            entry=work.entry,
            num_warps=config.number("num_warps"),
            num_stages=int(config.get("num_stages", 1)),
        )
        for work in works
    ]
    return CostModel(arch).predict(works, reports).time_us


def guess_config_us(
    spec: KernelSpec[Any], problem: Problem, config: Config, arch: GpuArch
) -> float:
    return guess_us(arch, spec.work(problem, config, arch), config)


@pytest.mark.parametrize("gpu", ["a100", "h100", "mi300x", "rtx4090"])
@pytest.mark.parametrize("rate", [predict_config_us, guess_config_us])
def test_splitting_helps_a_lonely_long_sequence(rate: Rate, gpu: str) -> None:
    spec, arch = PagedAttentionDecode(), lookup(gpu)
    problem = DecodeProblem(num_seqs=1, num_kv_heads=1, context_len=131_072)
    split = next(c for c in spec.space(problem, arch).legal if c["num_splits"] == 64)
    unsplit = split.replace(variant="unsplit", num_splits=1)
    assert rate(spec, problem, split, arch) < rate(spec, problem, unsplit, arch) / 4


@pytest.mark.parametrize("gpu", ["h100", "mi300x"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_default_configurations_stay_above_the_floor(kernel: str, gpu: str) -> None:
    spec, arch = load_kernel(kernel), lookup(gpu)
    points = spec.points(spec.problem_type())
    for point in (points[0], points[-1]):
        config = spec.default_config(point, arch)
        floor_us = CostModel(arch).floor_us(spec.flops(point), spec.min_bytes(point), point.dtype)
        assert 0 < floor_us <= predict_config_us(spec, point, config, arch)
        assert guess_config_us(spec, point, config, arch) > 0
