"""The prefill kernel's spec: its space, its counts, its inputs and its reference."""

from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from autotune.arch import GPUS, GpuArch
from autotune.config import Config
from autotune.errors import UsageError
from autotune.kernels import load_kernel
from autotune.kernels.attention_layout import AttentionLayout
from autotune.kernels.causal_walk import CausalWalk, pairs_seen
from autotune.kernels.paged_attention_prefill import PrefillProblem
from autotune.kernels.spec import KernelSpec
from autotune.render import TemplateFolder

SPEC: KernelSpec[Any] = load_kernel("paged_attention_prefill")
TEMPLATES = TemplateFolder(Path(__file__).parents[2] / "templates")
A100, H100, B200, MI300X = (GPUS[name] for name in ("a100", "h100", "b200", "mi300x"))
ARCHS = [GPUS[name] for name in ("a100", "h100", "b200", "rtx4090", "rtx5090", "mi300x")]


def config(**changes: int | str | bool) -> Config:
    base: dict[str, int | str | bool] = {
        "block_m": 64,
        "tile": 32,
        "lookup": "gather",
        "prefetch": False,
        "tail": "masked",
        "value_parts": 2,
        "num_warps": 4,
        "num_stages": 2,
        "order": "heads",
    }
    return Config(base | changes)


def test_more_queries_than_tokens_are_refused() -> None:
    with pytest.raises(UsageError, match="query_len=9 exceeds context_len=8"):
        PrefillProblem(query_len=9, context_len=8)


@pytest.mark.parametrize("arch", ARCHS, ids=lambda arch: arch.name)
@pytest.mark.parametrize(("block_size", "head_dim"), [(16, 128), (128, 80), (32, 256)])
def test_space_is_listable_and_has_its_default(
    arch: GpuArch, block_size: int, head_dim: int
) -> None:
    cell = PrefillProblem(block_size=block_size, head_dim=head_dim)
    space = SPEC.space(cell, arch)
    assert 100 <= len(space.binaries) <= 1000
    assert len(space.legal) == 3 * len(space.binaries)  # only the order of the grid is the host's
    for point in (cell, cell.at(num_seqs=32, query_len=1)):
        assert SPEC.default_config(point, arch) in space


@pytest.mark.parametrize("problem", SPEC.hard_problems(), ids=lambda problem: problem.label())
def test_hard_problems_have_a_default(problem: PrefillProblem) -> None:
    assert SPEC.default_config(problem, A100) in SPEC.space(problem, A100)


def test_default_has_no_more_rows_than_queries() -> None:
    rows = [
        SPEC.default_config(PrefillProblem(query_len=n, group=group, head_dim=head_dim), A100)
        for n, group, head_dim in (
            (1, 4, 128),
            (5, 4, 128),
            (512, 4, 128),
            (512, 4, 256),
            (1, 20, 64),
        )
    ]
    assert [config["block_m"] for config in rows] == [16, 32, 64, 32, 32]


@pytest.mark.parametrize(
    ("arch", "changes", "reason"),
    [
        (A100, {}, None),
        (A100, {"value_parts": 1}, "slices of the head dim"),
        (A100, {"num_warps": 8, "value_parts": 1}, "warps beyond one per 16 rows"),
        (A100, {"num_warps": 8, "value_parts": 1, "tile": 64}, None),
        (A100, {"block_m": 128, "num_warps": 4, "value_parts": 1}, "too few registers"),
        (A100, {"num_stages": 4}, "stages come in pairs"),
        (A100, {"num_stages": 4, "prefetch": True}, None),
        (A100, {"lookup": "scalar"}, "the lookup is a scalar"),
        (H100, {}, "slices of the head dim"),
        (H100, {"value_parts": 1}, None),
        (H100, {"value_parts": 1, "num_warps": 8, "tile": 64}, "warps beyond one per 16 rows"),
        (MI300X, {"value_parts": 1}, None),
        (MI300X, {"value_parts": 1, "num_stages": 4}, None),
        (MI300X, {"value_parts": 1, "num_stages": 3}, "stages come in pairs"),
        (MI300X, {"value_parts": 1, "block_m": 32}, "warps beyond one per 16 rows"),
        (MI300X, {"value_parts": 1, "tile": 64}, None),
        # Two tiles of keys and of values fill the 64 KiB to the last byte: no room for scratch.
        (MI300X, {"value_parts": 1, "tile": 64, "num_stages": 4}, "exceed shared memory"),
    ],
)
def test_what_is_legal_and_why_not(
    arch: GpuArch, changes: dict[str, int | str | bool], reason: str | None
) -> None:
    found = SPEC.space(PrefillProblem(), arch).why_illegal(config(**changes))
    assert found is None if reason is None else reason in (found or "legal")


def test_a_program_holds_the_whole_group() -> None:
    legal = SPEC.space(PrefillProblem(group=20), A100).legal
    assert {c["block_m"] for c in legal} == {32, 64, 128}


@pytest.mark.parametrize(
    ("arch", "rows", "warps", "dtype", "expected"),
    [
        (A100, 128, 8, "bf16", "mma"),
        (H100, 64, 4, "bf16", "wgmma"),
        (H100, 64, 2, "bf16", "mma"),
        (H100, 32, 4, "bf16", "mma"),
        (B200, 128, 8, "fp16", "tcgen05"),
        (GPUS["rtx5090"], 128, 8, "bf16", "mma"),
        (MI300X, 64, 4, "bf16", "mfma"),
        (H100, 64, 4, "fp32", None),
    ],
)
def test_expected_matrix_instruction(
    arch: GpuArch, rows: int, warps: int, dtype: str, expected: str | None
) -> None:
    problem = PrefillProblem(dtype=dtype)
    assert SPEC.expected_mma(problem, config(block_m=rows, num_warps=warps), arch) == expected


@pytest.mark.parametrize(
    ("head_dim", "rows", "warps", "parts"),
    [(128, 128, 8, (1, 2)), (128, 64, 4, (2,)), (128, 32, 2, (4,)), (64, 64, 4, (1,)),
     (80, 64, 2, (2,)), (256, 128, 8, (2, 4)), (128, 32, 4, (1,))],
)  # fmt: skip
def test_value_slices_are_no_wider_than_the_rows(
    head_dim: int, rows: int, warps: int, parts: tuple[int, ...]
) -> None:
    assert AttentionLayout(A100, "bf16", head_dim).value_parts(rows, warps) == parts


def test_work_of_a_small_prompt() -> None:
    # Group 4 and 16 rows: 4 queries a block. 6 queries at positions 34 to 39 of 40 tokens: blocks
    # end at 38 and 40, both 3 tiles of 16. Two sequences, two KV heads; 12 tokens / 4 + 2 blocks.
    problem = PrefillProblem(num_seqs=2, num_kv_heads=2, query_len=6, context_len=40)
    (work,) = SPEC.work(problem, config(block_m=16, tile=16, value_parts=1), A100)
    assert work.grid == (12 // 4 + 2) * 2
    assert work.longest_steps == 3
    assert work.loop_steps * work.grid == pytest.approx(2 * 2 * 6)
    assert work.flops == 4 * 16 * 128 * 16 * (2 * 2 * 6)
    assert work.step_bytes == 2 * 16 * 128 * 2
    q_and_out = 2 * (12 * 8 * 128 * 2)
    assert work.dram_bytes == 2 * (2 * 40 * 2 * 128 * 2) + q_and_out
    assert work.l2_bytes == 2 * 2 * (38 + 40) * 2 * 128 * 2 + q_and_out
    assert SPEC.flops(problem) == 4 * 2 * 8 * 128 * sum(range(35, 41))


def test_work_with_a_window() -> None:
    # The same with a window of 5: queries of block 0 see 30..37, of block 1 34..39: tiles of 16
    # from 16 and from 32. Keys before 30 are read by nobody.
    problem = PrefillProblem(num_seqs=1, num_kv_heads=1, query_len=6, context_len=40, window=5)
    (work,) = SPEC.work(problem, config(block_m=16, tile=16, value_parts=1), A100)
    assert work.longest_steps == 2
    assert work.loop_steps * work.grid == pytest.approx(2 + 1)
    q_and_out = 2 * (6 * 4 * 128 * 2)
    assert work.l2_bytes == ((38 - 16) + (40 - 32)) * 2 * 128 * 2 + q_and_out
    assert work.dram_bytes == 10 * 2 * 128 * 2 + q_and_out
    assert SPEC.flops(problem) == 4 * 4 * 128 * (6 * 5)


@pytest.mark.parametrize("window", [0, 1, 7, 33, 500])
@pytest.mark.parametrize("block_q", [1, 2, 9, 32])
@pytest.mark.parametrize(
    ("n", "context"), [(1, 1), (1, 300), (64, 64), (65, 65), (37, 290), (0, 9)]
)
def test_the_walk_is_what_counting_gives(n: int, context: int, block_q: int, window: int) -> None:
    tile, tiles, tokens = 16, [], 0
    for start in range(0, n, block_q):
        end = min(context - n + start + block_q, context)
        first = max(0, context - n + start - window + 1) // tile if window else 0
        tiles.append(math.ceil(end / tile) - first)
        tokens += end - first * tile
    expected = CausalWalk(sum(tiles), max(tiles, default=0), tokens)
    assert CausalWalk.of(n, context, window, block_q, tile) == expected
    seen = [min(at + 1, window or at + 1) for at in range(context - n, context)]
    assert pairs_seen(n, context, window) == sum(seen)


def test_points_are_few_and_include_a_chunk_on_a_long_context() -> None:
    points = SPEC.points(PrefillProblem())
    assert len(points) == len(set(points)) <= 8
    assert PrefillProblem(query_len=512, context_len=32768 + 512) in points


def test_inputs_are_ragged_and_poisoned() -> None:
    problem = PrefillProblem(
        dtype="fp16", num_seqs=9, query_len=21, context_len=70, num_kv_heads=2, head_dim=64
    )
    inputs = SPEC.make_inputs(problem, seed=0, device="cpu")
    starts, contexts = inputs["cu_query_lens"], inputs["context_lens"]
    lens = starts.diff()
    assert (int(lens[0]), int(contexts[0])) == (21, 70)
    assert {0, 1, 21} <= set(lens.tolist())
    assert 0 in contexts.tolist()
    assert bool(((lens <= contexts) | (contexts == 0)).all())
    live = int(starts[-1])
    q, out = inputs["q"], inputs["out"]
    assert not q.is_contiguous()
    assert bool(q[:live].isfinite().all())
    assert bool(q[live:].isnan().all())
    assert bool(out[:live].isnan().all())
    assert out[live:].numel() > 0
    assert bool((out[live:] == 1).all())
    used = sum(math.ceil(length / 16) for length in contexts.tolist())
    assert bool(inputs["k_cache"][0].isnan().all())
    filled_pages = int((~inputs["k_cache"].isnan()).flatten(1).any(1).sum())
    assert 0 < filled_pages <= used


@pytest.mark.parametrize("window", [0, 9])
def test_reference_agrees_with_torch(window: int) -> None:
    problem = PrefillProblem(
        dtype="fp32", num_seqs=6, query_len=150, context_len=200, num_kv_heads=2, head_dim=64,
        window=window,
    )  # fmt: skip
    inputs = SPEC.make_inputs(problem, seed=1, device="cpu")
    answer = SPEC.reference(problem, inputs)
    starts = inputs["cu_query_lens"].tolist()
    for seq, context in enumerate(inputs["context_lens"].tolist()):
        rows = slice(starts[seq], starts[seq + 1])
        if context == 0:
            assert bool((answer[rows] == 0).all())
            continue
        slots = torch.arange(context)
        pages = inputs["block_tables"][seq].long()[slots // 16]
        k, v = (inputs[name][pages, slots % 16] for name in ("k_cache", "v_cache"))
        n = starts[seq + 1] - starts[seq]
        seen = torch.ones(n, context, dtype=torch.bool).tril(context - n)
        if window:
            seen &= ~torch.ones(n, context, dtype=torch.bool).tril(context - n - window)
        expected = torch.nn.functional.scaled_dot_product_attention(
            inputs["q"][rows].transpose(0, 1),
            k.transpose(0, 1),
            v.transpose(0, 1),
            attn_mask=seen,
            enable_gqa=True,
        ).transpose(0, 1)
        torch.testing.assert_close(answer[rows].float(), expected, atol=2e-6, rtol=2e-6)
    assert bool((answer[starts[-1] :] == 1).all())


@pytest.mark.parametrize("window", [0, 100])
@pytest.mark.parametrize("softcap", [0.0, 30.0])
def test_every_structure_renders_to_python(window: int, softcap: float) -> None:
    problem = PrefillProblem(window=window, softcap=softcap)
    structures: dict[tuple[object, ...], Config] = {}
    for each in SPEC.space(problem, A100).legal:
        key = tuple(each[k] for k in ("lookup", "prefetch", "tail", "value_parts"))
        structures.setdefault(key, each)
    assert len(structures) >= 2 * 2 * 3 * 3  # scalar for 16 keys; pages and gather for more
    for each in structures.values():
        tree = ast.parse(TEMPLATES.render(SPEC, problem, each).source)
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert {"paged_attention_prefill", "launch"} <= names
