"""Which kernels an engine resolves to, on GPUs that are not here."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from autotune.arch import lookup
from autotune.kernels import load_kernel
from autotune.paths import data_dir
from autotune.records import Provenance, Timing
from autotune.registry import Tier, TunedKernels
from autotune.results import ResultsStore
from runtime.block_size import choose_block_size
from runtime.errors import DeviceError, InvalidParameterError
from runtime.gpu import match_gpu, named_gpu
from runtime.kernel_set import DECODE, MLP, PREFILL, Fallback, KernelSet
from runtime.kernel_table import KernelTable
from runtime.ops.base import AttentionSpec
from runtime.ops.limits import StepLimits
from runtime.ops.request import Demands, MlpShape

SHIPPED = data_dir("results")
LLAMA = AttentionSpec(num_heads=32, num_kv_heads=8, head_dim=128, scale=128**-0.5)
GATE_UP = MlpShape(14336, 4096, "silu", has_bias=False)
LIMITS = StepLimits(max_num_seqs=256, max_num_tokens=8192, max_model_len=8192, pool_tokens=500_000)


def kernel_set(gpu: str, results: Path = SHIPPED, limits: StepLimits = LIMITS) -> KernelSet:
    return KernelSet(TunedKernels.load(gpu, results), "bf16", limits)


def tables(kernels: KernelSet) -> dict[str, KernelTable]:
    """The tables of Llama 3.1 8B at blocks of 16."""
    found = {
        DECODE: kernels.decode(LLAMA, 16),
        PREFILL: kernels.prefill(LLAMA, 16),
        MLP: kernels.gate_up(GATE_UP),
    }
    assert all(isinstance(served, KernelTable) for served in found.values())
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("gpu", ["a100", "h100", "mi300x"])
def test_shipped_selections_serve_llama(gpu: str) -> None:
    for kernel, table in tables(kernel_set(gpu)).items():
        stored = [
            selection
            for cell in ResultsStore(SHIPPED).read(gpu, kernel)
            for selection in cell.selections
        ]
        assert 1 <= len(table.entries) <= 6, "few binaries"
        for entry in table.entries:
            assert entry.tier is Tier.PREDICTED
            assert f"predicted on {gpu}" in entry.source
            assert entry.selection in stored
            assert entry.config == entry.selection.config
            assert entry.selection.exact == entry.problem.exact_axes()
            space = load_kernel(kernel).space(entry.problem, lookup(gpu))
            assert space.why_illegal(entry.config) is None


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9, 100, 256, 5000])
def test_a_size_is_served_by_what_its_next_power_of_two_resolves_to(size: int) -> None:
    tuned = TunedKernels.load("h100", SHIPPED)
    table = tables(KernelSet(tuned, "bf16", LIMITS))[DECODE]
    num_seqs = min(256, 1 << (size - 1).bit_length())
    problem = table.entries[0].problem.at(
        num_seqs=num_seqs, context_len=LIMITS.typical_context(num_seqs, 512)
    )
    assert table.entry(size).config == tuned.resolve(DECODE, problem).config


def test_typical_contexts() -> None:
    assert LIMITS.typical_context(1, 512) == 2048  # between 512 and 8192
    assert LIMITS.typical_context(250, 512) == 1011  # 2000 tokens each
    assert LIMITS.typical_context(5000, 512) == 100  # fewer than are tuned for


def test_corrupt_results_cost_the_tuning_not_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(SHIPPED / "a100", tmp_path / "a100")
    path = tmp_path / "a100" / f"{DECODE}.json"
    path.write_bytes(path.read_bytes()[:-500])
    with caplog.at_level(logging.WARNING):
        tuned = TunedKernels.load("a100", tmp_path)
    assert len(tuned.refused) == 1
    assert str(path) in caplog.text
    found = tables(KernelSet(tuned, "bf16", LIMITS))
    assert {entry.tier for entry in found[DECODE].entries} == {Tier.DEFAULT}
    assert {entry.tier for entry in found[PREFILL].entries} == {Tier.PREDICTED}


def test_a_window_that_no_sequence_outgrows_is_none() -> None:
    windowed = AttentionSpec(32, 8, 128, 128**-0.5, window=8192)
    wide = kernel_set("h100").decode(windowed, 16)
    assert isinstance(wide, KernelTable)
    assert {entry.tier for entry in wide.entries} == {Tier.PREDICTED}
    longer = StepLimits(256, 8192, 8193, 500_000)
    narrow = kernel_set("h100", limits=longer).decode(windowed, 16)
    assert isinstance(narrow, KernelTable)
    assert {entry.problem.exact_axes()["window"] for entry in narrow.entries} == {8192}


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (AttentionSpec(4, 2, 8, 0.3), "head_dim 8"),
        (AttentionSpec(4, 2, 64, -0.1), "scale"),
        (AttentionSpec(512, 1, 128, 0.1), "nothing is legal"),
    ],
)
def test_what_a_kernel_cannot_serve_is_torchs_and_said_once(
    spec: AttentionSpec, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    kernels = kernel_set("h100")
    with caplog.at_level(logging.WARNING, logger="runtime.kernels"):
        for _ in range(3):
            served = kernels.prefill(spec, 16)
    assert isinstance(served, Fallback)
    assert reason in served.reason
    assert len(caplog.records) == 1
    assert reason in caplog.text
    (row,) = served.rows()
    assert (row.kernel, row.reason) == ("torch", served.reason)


@pytest.mark.parametrize(
    "shape", [MlpShape(64, 32, "silu", has_bias=True), MlpShape(64, 32, "relu", has_bias=False)]
)
def test_a_gated_mlp_that_the_kernel_cannot_serve(shape: MlpShape) -> None:
    served = kernel_set("h100").gate_up(shape)
    assert isinstance(served, Fallback)
    assert ("bias" if shape.has_bias else "relu") in served.reason


def test_blocks_that_no_tile_fits() -> None:
    served = kernel_set("h100").decode(LLAMA, 5)
    assert isinstance(served, Fallback)
    assert "tile" in served.reason


@pytest.mark.parametrize("gpu", ["a100", "h100", "mi300x"])
def test_auto_block_size_is_the_best_tuned(gpu: str) -> None:
    tuned = TunedKernels.load(gpu, SHIPPED)
    times = tuned.block_sizes(
        DECODE, {**tables(kernel_set(gpu))[DECODE].entries[0].problem.exact_axes()}
    )
    assert times is not None
    least = min(times.mean_us.values())
    size = min(n for n, time_us in times.mean_us.items() if time_us <= 1.01 * least)
    choice = choose_block_size(tuned, Demands({LLAMA: 32}, GATE_UP), "bf16", "auto", 8192)
    assert choice.size == size
    assert "predicted" in choice.reason


def test_auto_block_size_without_tuning(tmp_path: Path) -> None:
    tuned = TunedKernels.load("h100", tmp_path)
    choice = choose_block_size(tuned, Demands({LLAMA: 32}, None), "bf16", "auto", 8192)
    assert choice.size == 16
    assert "nothing is tuned" in choice.reason


def test_devices_are_known_by_name_or_by_their_target() -> None:
    assert match_gpu("NVIDIA H100 80GB HBM3", "sm_90", 132).arch.name == "h100"
    other = match_gpu("NVIDIA H200 NVL", "sm_90", 130)
    assert other.is_stand_in
    assert other.arch.target == "sm_90"
    assert other.arch.sm_count == 132
    assert other.num_sms == 130
    assert "NVIDIA H200 NVL" in other.note
    with pytest.raises(DeviceError, match=r"Tesla T4 \(sm_75\).*--ops torch"):
        match_gpu("Tesla T4", "sm_75", 40)
    with pytest.raises(InvalidParameterError, match="h100"):
        named_gpu("h1000")


@pytest.mark.parametrize(
    ("is_stand_in", "tiers"),
    [(False, {Tier.EXACT, Tier.NEAREST}), (True, {Tier.SAME_ARCHITECTURE})],
)
def test_a_stand_in_is_never_exact(tmp_path: Path, is_stand_in: bool, tiers: set[Tier]) -> None:
    cells = ResultsStore(SHIPPED).read("h100", MLP)
    timing = Timing(50.0, 49.0, 51.0, 20)
    measured = [
        replace(
            cell,
            selections=tuple(
                replace(selection, provenance=Provenance.MEASURED, error_factor=None, timing=timing)
                for selection in cell.selections
            ),
        )
        for cell in cells
    ]
    ResultsStore(tmp_path).merge("h100", MLP, measured)
    tuned = TunedKernels.load("h100", tmp_path)
    served = KernelSet(tuned, "bf16", LIMITS, is_stand_in=is_stand_in).gate_up(GATE_UP)
    assert isinstance(served, KernelTable)
    assert {entry.tier for entry in served.entries} <= tiers
    assert all(f"(tier {entry.tier})" in entry.source for entry in served.entries)
