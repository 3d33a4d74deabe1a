"""Others' measured winners: what they are taken for, how they are split, what the table says."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotune.arch import lookup
from autotune.cli import main
from autotune.coefficients import Coefficients, CoefficientTable, shipped
from autotune.cost_model import CostModel, launch_us
from autotune.errors import CorruptResultError, UsageError
from autotune.kernels import load_kernel
from autotune.kernels.fused_mlp_problem import FusedMlpProblem
from autotune.prior import guess_all_us
from autotune.winners import attention, dequant, moe, tiled
from autotune.winners.case import Case, find, grid
from autotune.winners.fit import fit
from autotune.winners.folder import read_file, read_folder
from autotune.winners.score import score, summarise

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "measured_winners"
DEQUANT = {
    "kind": "gemm_splitk", "m": 16, "n": 4096, "k": 4096, "group_size": 128, "weight_bits": 4,
    "activation_dtype": "fp16", "block_m": 16, "block_n": 64, "block_k": 64, "split_k": 8,
    "num_warps": 4, "num_stages": 4,
}  # fmt: skip
MOE = {
    "experts": 8, "n": 3584, "tokens": 64,
    "block_m": 16, "block_n": 128, "block_k": 128, "group_m": 1, "num_warps": 4, "num_stages": 4,
}  # fmt: skip
AXES = {
    "max_seq_q": 512, "max_seq_k": 512, "avg_seq_q": 512, "avg_seq_k": 512,
    "num_query_heads": 32, "num_queries_per_kv": 4, "block_size": 16, "head_size_padded": 128,
}  # fmt: skip
ATTENTION = {"BLOCK_M": 64, "BLOCK_N": 32, "num_warps": 4, "num_stages": 4}


def only(cases: Any) -> Case:
    (case,) = [case for case in cases if case is not None]
    return case


def at(case: Case, field: str, launch: int = 0) -> float:
    """Value of a launch's field for the winner."""
    values = np.broadcast_to(getattr(case.launches[launch], field), (case.size,))
    return float(values[case.winners[0]])


def test_a_split_k_layer_is_mapped() -> None:
    case = only(dequant.cases(lookup("a100"), [DEQUANT]))
    assert (case.family, case.kind) == ("gemlite gemm_splitk w4", "dequant")
    assert at(case, "grid") == 64 * 8
    assert at(case, "loop_steps") == 4096 / 64 / 8
    assert at(case, "flops") == 2 * 16 * 4096 * 4096
    # Nibbles, a scale and a zero of 16 bits per group, x and out.
    assert at(case, "dram_bytes") == 4096 * 4096 / 2 + 4 * 4096 * 32 + 2 * 16 * (4096 + 4096)
    assert at(case, "atomic_bytes") == 8 * 2 * 16 * 4096


def test_the_same_layer_is_legal_only_inside_its_group_and_tiles() -> None:
    case = only(dequant.cases(lookup("a100"), [DEQUANT]))
    assert set(case.knobs["block_k"]) == {32, 64, 128}
    assert set(case.knobs["block_m"]) == {16}
    assert set(case.knobs["num_stages"]) == {4}
    assert list(dequant.cases(lookup("a100"), [DEQUANT | {"block_k": 256}])) == [None]


@pytest.mark.parametrize(
    ("kind", "bits", "coefficients"),
    [("gemv_revsplitk", 4, "gemv_rows"), ("gemv_splitk", 8, "gemv"), ("gemm", 8, "gemm")],
)
def test_kinds_of_layers_have_their_own_constants(kind: str, bits: int, coefficients: str) -> None:
    record = DEQUANT | {"kind": kind, "weight_bits": bits, "split_k": 1, "num_stages": 2}
    if kind.startswith("gemv"):
        record |= {"m": 1, "block_m": 1, "block_n": 32, "block_k": 64}
    else:
        record |= {"m": 256, "block_m": 128, "activation_dtype": "int8"}
    case = only(dequant.cases(lookup("h100"), [record]))
    assert case.kind == coefficients


def test_experts_are_two_products() -> None:
    case = only(moe.cases(lookup("h100"), [MOE]))
    assert len(case.launches) == 2
    # 64 tokens of top 2: all 8 experts are busy with 16 rows each, padded to 1.5 tiles.
    assert at(case, "grid") == 12 * (2 * 3584 / 128)
    assert at(case, "grid", 1) == 12 * (4096 / 128)
    assert at(case, "loop_steps", 1) == 3584 / 128


def test_one_expert_is_a_dense_product_like_ours() -> None:
    """The adapter and our own kernel count the same work for the same down projection."""
    arch = lookup("h100")
    record = MOE | {"experts": 1, "tokens": 256, "block_m": 64, "block_k": 64}
    case = only(moe.cases(arch, [record]))
    problem = FusedMlpProblem("fp16", "down", "none", False, n=4096, k=3584, m=256)
    spec = load_kernel("fused_mlp")
    config = spec.space(problem, arch).config(
        block_m=64, block_n=128, block_k=64, num_warps=4, num_stages=4, swap_ab=False,
        schedule="tiles", group_m=1, variant="plain", num_splits=1,
    )  # fmt: skip
    (work,) = spec.work(problem, config, arch)
    for field in ("grid", "loop_steps", "flops", "step_bytes", "l2_bytes"):
        assert at(case, field, 1) == getattr(work, field), field
    assert at(case, "dram_bytes", 1) == pytest.approx(work.dram_bytes)
    ours = guess_all_us(arch, [((work,), config)])[0]
    theirs = launch_us(case.launches[1], arch, shipped().row("gemm", arch))[case.winners[0]]
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_attention_is_our_prefill() -> None:
    case = only(attention.cases(lookup("h100"), [(AXES, ATTENTION, 23.0)]))
    assert case.times_us == (23.0,)
    # One sequence of 512: 32 blocks of 16 tokens for each of 8 heads, the longest over 16 tiles.
    assert at(case, "grid") == 32 * 8
    assert at(case, "longest_steps") == 16
    assert at(case, "loop_steps") == 16, "causality skips nothing in the version that was measured"


def test_batches_are_the_benchmarks_first_of_their_key() -> None:
    batches = attention.benchmark_batches(16)
    assert batches[512, 512, 512, 512] == ((512, 512),)
    assert batches[1, 4096, 1, 4096] == ((1, 4096),)
    # Half of two sequences decode.
    assert batches[512, 512, 256, 512] == ((1, 512), (512, 512))
    # Mean half of the longest: the first four lengths of the ragged pattern.
    assert [k for _, k in batches[4096, 4096, 2048, 2048]] == [410, 1639, 2048, 4096]


def test_an_unknown_tiled_kernel_is_a_plain_gemm() -> None:
    record = {"m": 64, "n": 2048, "k": 4096, "block_m": 64, "block_n": 128, "block_k": 128,
              "num_warps": 4, "num_stages": 3}  # fmt: skip
    other = record | {"m": 128, "block_m": 16, "block_n": 32, "num_warps": 8}
    cases = list(tiled.cases(lookup("l40s"), "w8a8_block_fp8_matmul", [record, other]))
    case = cases[0]
    assert case is not None
    assert case.problem["dtype"] == "fp8"
    assert set(case.knobs["block_m"]) == {16, 32, 64}
    assert set(case.knobs["num_stages"]) == {3}
    assert at(case, "grid") == 16
    assert at(case, "dram_bytes") == 4096 * (64 + 2048) + 2 * 64 * 2048


def test_the_split_is_the_same_everywhere() -> None:
    here, there = (only(moe.cases(lookup(gpu), [MOE])) for gpu in ("h100", "a100"))
    assert here.digest == there.digest
    halves = [case.held_out for file in read_folder(SAMPLE) for case in file.cases]
    assert 0.35 < sum(halves) / len(halves) < 0.65


def test_ranks_and_regret_are_counted_right() -> None:
    case = only(moe.cases(lookup("h100"), [MOE]))
    times = sum(
        launch_us(launch, lookup("h100"), shipped().row("gemm", lookup("h100")))
        for launch in case.launches
    )
    for index in (int(np.argmin(times)), int(np.argmax(times))):
        (one,) = score([dataclasses.replace(case, winners=(index,))], shipped())
        assert one.regret == pytest.approx(times[index] / times.min() - 1)
        expected = 0.0 if index == np.argmin(times) else 1.0
        assert one.percentile == pytest.approx(expected, abs=0.01)


def test_the_sample_is_read_and_mapped() -> None:
    files = read_folder(SAMPLE)
    assert len(files) == 10
    assert all(file.skipped is None for file in files)
    mapped = sum(len(case.winners) for file in files for case in file.cases)
    assert mapped >= 0.97 * sum(file.records for file in files)


def test_the_shipped_constants_rank_the_sample_well() -> None:
    cases = [case for file in read_folder(SAMPLE) for case in file.cases if case.held_out]
    fitted = list(score(cases, shipped()))
    bare = list(score(cases, CoefficientTable()))
    assert np.median([one.percentile for one in fitted]) <= 0.10
    assert np.median([one.regret for one in fitted]) <= 0.10
    assert np.median([one.percentile for one in fitted]) < np.median(
        [one.percentile for one in bare]
    )
    for line in summarise([one for one in fitted if one.ratio is not None]):
        assert line.fold is not None
        assert line.fold[1] <= 1.5, line


def test_a_fit_is_deterministic_and_no_worse_than_what_it_starts_from() -> None:
    file = read_file(SAMPLE / "paged_attention_h100.json")
    once, again = (fit(file.cases, "test") for _ in range(2))
    assert once == again
    seen = [case for case in file.cases if not case.held_out]
    regrets = [
        np.mean([one.regret for one in score(seen, table)]) for table in (once, CoefficientTable())
    ]
    assert regrets[0] <= regrets[1]


def write(path: Path, data: object) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        json.dump(data, stream)
    return path


def moe_file(**changes: Any) -> dict[str, Any]:
    data = {"kernel": "fused_moe", "gpu": "h100", "columns": list(MOE), "rows": [[*MOE.values()]]}
    return data | changes


def test_unknown_gpus_and_kernels_are_skipped_with_the_reason(tmp_path: Path) -> None:
    file = read_file(write(tmp_path / "a.json.gz", moe_file(gpu="tpu")))
    assert file.skipped is not None
    assert "unknown GPU 'tpu'" in file.skipped
    file = read_file(write(tmp_path / "b.json.gz", moe_file(columns=["x"], rows=[[1]])))
    assert file.skipped is not None
    assert "of no kernel that can be mapped" in file.skipped


@pytest.mark.parametrize(
    "harm",
    [
        {"rows": []},
        {"rows": [[1]]},
        {"rows": 3},
        {"gpu": 3},
        {"columns": None},
        {"rows": [[*list(MOE.values())[:-1], -1]]},
        {"rows": [[*list(MOE.values())[:-1], "4"]]},
        {"rows": [[*list(MOE.values())[:-1], 1 << 40]]},
    ],
)
def test_hostile_files_are_refused(harm: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CorruptResultError, match=r"a\.json\.gz"):
        read_file(write(tmp_path / "a.json.gz", moe_file(**harm)))


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b", b"not gzip"])
def test_damaged_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(content)
    with pytest.raises(CorruptResultError, match=r"a\.json\.gz"):
        read_file(path)


def test_an_empty_folder_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no"):
        read_folder(tmp_path)
    with pytest.raises(UsageError, match="is no folder"):
        read_folder(tmp_path / "absent")


def test_the_command_prints_the_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table = tmp_path / "table.md"
    words = ["replay", "--winners", str(SAMPLE), "--markdown", str(table), "--json"]
    assert main(words) == 0
    document = json.loads(capsys.readouterr().out)
    assert {line["gpu"] for line in document["scores"]} == {
        "a100", "h100", "h200", "mi300x", "rtx4090",
    }  # fmt: skip
    assert len(table.read_text().splitlines()) == 4 + len(document["scores"])
    assert main(["replay", "--winners", str(SAMPLE), "--split", "all"]) == 0
    assert "vllm fused_moe" in capsys.readouterr().out


def test_find_wants_every_knob() -> None:
    columns = grid({"a": (1, 2), "b": (4, 8)})
    assert find(columns, {"a": 2, "b": 4}) == 2
    assert find(columns, {"a": 3, "b": 4}) is None


def test_predictions_and_guesses_share_constants() -> None:
    table = CoefficientTable(rows={("gemm", "default"): Coefficients(launch_us=7.0)})
    arch = lookup("a100")
    assert CostModel(arch, table).row("fused_mlp_down").launch_us == 7.0
    assert CostModel(arch, table).row("dequant_gemv").launch_us == 3.0
