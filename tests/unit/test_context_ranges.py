"""Contexts cut into chunks: the knobs, what they stay out of, and what the model is told."""

from __future__ import annotations

import math

import pytest
from own_folders import Folders
from record_cases import make_report, make_selection

from autotune.arch import lookup
from autotune.cell import Cell
from autotune.config import Config
from autotune.errors import UsageError
from autotune.kernels import load_kernel
from autotune.kernels.context_ranges import Ranges, ranges_of
from autotune.kernels.paged_attention_decode_problem import DecodeProblem
from autotune.paths import templates_dir
from autotune.records import Environment, Evaluation, Status
from autotune.registry import Tier, TunedKernels
from autotune.render import TemplateFolder
from autotune.results import CellResult, ResultsStore
from autotune.select import select
from runtime.kernel_set import KernelSet
from runtime.kernel_table import KernelTable
from runtime.ops.base import AttentionSpec
from runtime.ops.limits import StepLimits

ARCH = lookup("h100")
SPEC = load_kernel("paged_attention_decode")
CELL = DecodeProblem()
SPACE = SPEC.space(CELL, ARCH)
USUAL = SPEC.default_config(CELL.at(num_seqs=1), ARCH)
CHUNKS = SPACE.steadied(USUAL)
LIMITS = StepLimits(256, 8192, 32768, 500_000)
LLAMA = AttentionSpec(num_heads=32, num_kv_heads=8, head_dim=128, scale=128**-0.5)


def test_an_ordinary_search_knows_nothing_of_chunks() -> None:
    assert not {"cut", "chunk_tokens"} & {knob.name for knob in SPACE.knobs}
    assert all("chunk_tokens" not in config for config in SPACE.legal[::50])
    text = TemplateFolder(templates_dir()).render(SPEC, CELL, USUAL).source
    assert "chunk_tiles" not in text
    assert "_first_key" not in text
    named = USUAL.replace(cut="number", chunk_tokens=0)
    again = TemplateFolder(templates_dir()).render(SPEC, CELL, named)
    assert again.source.split("\n", 4)[4] == text.split("\n", 4)[4]
    assert SPACE.stored(named) == USUAL
    assert SPEC.reduction_order(CELL, named, ARCH) == SPEC.reduction_order(CELL, USUAL, ARCH)


def test_a_search_for_one_order_of_sums_does() -> None:
    space = SPACE.repeatable
    chunked = [config for config in space.legal if config["cut"] == "chunks"]
    assert len(space.legal) - len(chunked) == len(SPACE.legal)
    assert {c["chunk_tokens"] for c in chunked} == {128, 256, 512, 1024, 2048, 4096}
    assert {c["num_splits"] for c in chunked} == {16, 32, 64}
    assert {c["variant"] for c in chunked} == {"split"}
    of_one = space.binaries[space.binary_of(chunked[0])]
    assert len(of_one) == 18, "lengths share a binary"
    assert len(space.widened.legal) == len(space.legal), "no other variant on NVIDIA's GPUs"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chunk_tokens": 0}, "go together"),
        ({"cut": "number"}, "go together"),
        ({"num_splits": 8}, "few programs"),
        ({"variant": "unsplit", "num_splits": 1}, "only the split variant|few programs"),
    ],
    ids=str,
)
def test_what_is_illegal(change: dict[str, int | str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        SPACE.config(**{**CHUNKS, **change})


def test_ranges_are_chunks_until_there_would_be_too_many() -> None:
    config = CHUNKS.replace(tile=32, chunk_tokens=128, num_splits=16)  # four tiles a chunk
    assert ranges_of(config, 0) == Ranges(1, 0, are_merged=True)
    assert ranges_of(config, 1) == Ranges(1, 1, are_merged=True)
    assert ranges_of(config, 4) == Ranges(1, 4, are_merged=True)
    assert ranges_of(config, 5) == Ranges(2, 4, are_merged=True)
    assert ranges_of(config, 64) == Ranges(16, 4, are_merged=True)
    assert ranges_of(config, 65) == Ranges(13, 5, are_merged=True)
    assert ranges_of(config, 1000) == Ranges(16, 63, are_merged=True)
    for tiles in range(1, 200):
        found = ranges_of(config, tiles)
        assert (found.count - 1) * found.longest < tiles <= found.count * found.longest
    assert ranges_of(USUAL.replace(num_splits=8), 20) == Ranges(8, 3, are_merged=True)


def test_work_grows_with_the_context_and_not_with_the_bound() -> None:
    config = CHUNKS.replace(tile=32, chunk_tokens=256, num_splits=64)
    for context_len, ranges in ((100, 1), (256, 1), (257, 2), (2048, 8), (32768, 64)):
        point = CELL.at(num_seqs=4, context_len=context_len)
        main, merge = SPEC.work(point, config, ARCH)
        assert main.grid == 4 * 8 * ranges
        assert merge.grid == 4 * 32
        assert merge.loop_steps == math.ceil(ranges / 8)
        assert main.loop_steps == math.ceil(context_len / 32) / ranges
        by_number = SPEC.work(point, config.replace(cut="number", num_splits=64), ARCH)[0]
        assert main.dram_bytes == by_number.dram_bytes
        assert (main.l2_bytes < by_number.l2_bytes) == (ranges < 64)
    seen = CELL.from_axes({"window": 1024, "num_seqs": 4, "context_len": 32768})
    assert SPEC.work(seen, config, ARCH)[0].grid == 4 * 8 * 4, "of what is seen"


def test_the_order_of_sums_names_chunks() -> None:
    orders = {
        SPEC.reduction_order(CELL, CHUNKS.replace(**change), ARCH)
        for change in ({}, {"chunk_tokens": 512}, {"num_splits": 64}, {"num_stages": 1})
    }
    assert len(orders) == 3
    assert all(order["cut"] == "chunks" for order in orders)


def test_selections_of_one_order_may_be_chunks() -> None:
    cell = Cell(SPEC, ARCH, CELL, repeatable=True)

    def judged(config: Config) -> Evaluation:
        works = SPEC.work(CELL, config, ARCH)
        reports = tuple(make_report(entry=work.entry) for work in works)
        return Evaluation(config, Status.OK, None, reports)

    usual = CHUNKS.replace(cut="number", chunk_tokens=0, num_splits=16)
    unsplit = usual.replace(variant="unsplit", num_splits=1)
    selections = select(cell, [judged(config) for config in (usual, unsplit, CHUNKS)])
    (order,) = {cell.order(cell.space.named(one.config)) for one in selections}
    assert order is not None
    assert order["cut"] == "chunks", "short contexts stay whole, long ones spread"
    assert all(SPACE.repeatable.why_illegal(one.config) is None for one in selections)
    numbers = [one.time_us for one in select(cell, [judged(usual), judged(unsplit)])]
    gains = [old / new.time_us for old, new in zip(numbers, selections, strict=True)]
    assert math.prod(gains) > 1


def test_an_engine_takes_the_chunks_of_a_results_file(folders: Folders) -> None:
    config = CHUNKS.replace(chunk_tokens=1024)
    order = SPEC.reduction_order(CELL, config, ARCH)
    selections = tuple(
        make_selection(point, "h100", config=config, reports=()) for point in SPEC.points(CELL)[::5]
    )
    found = {"reduction_order": dict(order)}
    cell = CellResult(CELL.exact_axes(), "0" * 16, Environment("3.7.1", "ptxas"), found, selections)
    ResultsStore(folders.results).merge("h100", SPEC.name, [cell])
    tuned = TunedKernels.load("h100", folders.results)
    assert tuned.refused == []
    table = KernelSet(tuned, "bf16", LIMITS, deterministic=True).decode(LLAMA, 16)
    assert isinstance(table, KernelTable)
    (entry,) = table.entries
    assert (entry.tier, entry.config) == (Tier.PREDICTED, config)


def test_without_results_one_default_serves_all_sizes(folders: Folders) -> None:
    tuned = TunedKernels.load("h100", folders.results)
    table = KernelSet(tuned, "bf16", LIMITS, deterministic=True).decode(LLAMA, 16)
    assert isinstance(table, KernelTable)
    (entry,) = table.entries
    assert entry.tier is Tier.DEFAULT
    assert entry.config["cut"] == "chunks"
    assert SPACE.why_illegal(entry.config) is None
    free = KernelSet(tuned, "bf16", LIMITS).decode(LLAMA, 16)
    assert isinstance(free, KernelTable)
    assert all("cut" not in entry.config for entry in free.entries)
