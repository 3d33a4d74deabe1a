"""The cost model's judge: scores by hand, facts read back, fits that have not seen all."""

from __future__ import annotations

import dataclasses
import gzip
import math
from pathlib import Path

import numpy as np
import pytest
from evidence.families import FAMILIES
from evidence.grids import GRIDS
from evidence.points import SPACES
from evidence.sanitize import found_errors
from evidence.tables import block_size_tables

from autotune.arch import lookup
from autotune.binary_facts import BinaryFacts, facts_beside, read_facts, write_facts
from autotune.cell import Cell
from autotune.coefficients import shipped
from autotune.errors import CorruptResultError, UsageError
from autotune.kernels import load_kernel
from autotune.model_case import make_model_case
from autotune.model_fit import predict_unseen
from autotune.model_report import SHIPPED, document, judge, markdown
from autotune.model_score import score, summarise
from autotune.recorded import RecordedSpace
from autotune.records import CompileReport, Environment, Status

GEMM = "part=down,activation=none,n=512,k=512"


def report(registers: int, warps: int, stages: int) -> CompileReport:
    loop = {"mma": 8, "load_shared": 8, "integer": 20, "async_copy": 4}
    return CompileReport(
        "fused_mlp_down", registers, 0, 40_000, warps, stages, "mma", loop, 1 << 16, 1000, "0" * 16
    )


def recording(m: int, slower: float = 1.0) -> tuple[RecordedSpace, BinaryFacts]:
    """Thirty configurations whose time is the shipped model's, but for one constant."""
    arch, spec = lookup("h200"), load_kernel("fused_mlp")
    cell = Cell(spec, arch, spec.problem_type.parse(GEMM))
    configs = [c for c in cell.space.legal if c["variant"] == "plain"][::10][:30]
    reports = {
        cell.space.binary_of(c): (report(64, c.number("num_warps"), c.number("num_stages")),)
        for c in configs
    }
    facts = BinaryFacts("x", "h200", "fused_mlp", "0" * 64, Environment("3.6.0", "ptxas"), reports)
    point = cell.problem.at(m=m)
    times = []
    for config in configs:
        works = spec.work(point, config, arch)
        known = reports[cell.space.binary_of(config)]
        times.append(slower * cell.model.predict(works, known).time_us)
    space = RecordedSpace(
        f"x-m{m}", "h200", "fused_mlp", {**point.named_axes(), **point.nearest_axes()},
        cell.space.knobs, tuple(configs), tuple(times), (Status.OK,) * len(configs),
    )  # fmt: skip
    return space, facts


def test_scores_by_hand() -> None:
    times = np.array([10.0, 20.0, math.nan, 40.0, 11.0])
    found = score(times, np.array([2.0, 3.0, 1.0, 4.0, 5.0]))
    assert found.fractions == {1: None, 4: 1.0, 8: 1.0}  # what it likes best does not run
    assert found.regret(1) is None
    assert found.recall == 1.0
    assert score(times, -times).fractions[1] == 0.25
    assert score(times, times).spearman == pytest.approx(1.0)
    assert score(times, -times).spearman == pytest.approx(-1.0)
    total = summarise([found, score(times, -times)])
    assert total.without == {1: 1, 4: 0, 8: 0}
    assert total.fractions[1] == pytest.approx(0.25)
    assert total.fractions[8] == pytest.approx(1.0)


def test_the_model_is_right_about_its_own_times_and_facts_may_be_missing() -> None:
    cases = [make_model_case(*recording(m)) for m in (16, 256)]
    judged = judge(cases, shipped(), fits=False)
    own = [one.score for one in judged if one.model == SHIPPED]
    assert [one.fractions[1] for one in own] == [1.0, 1.0]
    assert all(one.spearman == pytest.approx(1.0) for one in own)
    blind = make_model_case(recording(16)[0], None)
    assert {one.model for one in judge([blind], shipped())} == {"estimates"}
    assert len(document(judged)["spaces"]) == 4
    assert "Regret@k" in markdown(judged)


def test_a_fit_learns_from_other_sizes() -> None:
    cases = [make_model_case(*recording(m, slower=2.0)) for m in (16, 256)]
    unseen = predict_unseen(cases, shipped())
    assert set(unseen) == {case.name for case in cases}
    for case in cases:
        off = abs(math.log(float(np.median(case.times_us / unseen[case.name]))))
        assert off < math.log(2.0) / 2  # without a fit it is log 2
    assert predict_unseen(cases[:1], shipped()) == {}


def test_facts_read_back_and_nonsense_is_refused(tmp_path: Path) -> None:
    space, facts = recording(16)
    path = write_facts(facts, tmp_path)
    assert read_facts(path) == facts
    assert facts_beside(tmp_path / f"{space.name}.space.json.gz") == path
    assert facts_beside(tmp_path / "y-m16.space.json.gz") is None
    for text in ("{}", "[", '{"schema":"pagetune-binary-facts","schema_version":1,"binaries":[1]}'):
        path.write_bytes(gzip.compress(text.encode()))
        with pytest.raises(CorruptResultError):
            read_facts(path)


def test_what_is_no_kernel_of_ours_cannot_be_judged() -> None:
    space, facts = recording(16)
    with pytest.raises(UsageError, match="the cost model knows"):
        make_model_case(dataclasses.replace(space, kernel="convolution"), facts)
    with pytest.raises(UsageError, match="of another recording"):
        make_model_case(space, dataclasses.replace(facts, reports={}))


def test_grids_name_values_that_exist_and_keep_a_few_hundred_configurations() -> None:
    for kernel, axes, sizes in SPACES:
        spec = load_kernel(kernel)
        cell = Cell(spec, lookup("h200"), spec.problem_type.parse(axes))
        knobs = {knob.name: knob.values for knob in cell.space.knobs}
        grid = GRIDS[kernel]
        assert all(set(values) <= set(knobs[name]) for name, values in grid.items())
        kept = [c for c in cell.space.legal if all(c[n] in v for n, v in grid.items())]
        assert 300 <= len(kept) <= 900
        assert 4 <= len(sizes) <= 6


def test_families_come_in_order_of_value_and_cover_what_is_asked() -> None:
    assert [family.kernel for family in FAMILIES[:4]] == [
        "paged_attention_decode", "dequant_gemm", "fused_mlp", "paged_attention_prefill",
    ]  # fmt: skip
    sizes = {(s["num_seqs"], s["context_len"]) for s in FAMILIES[0].sizes}
    assert sizes == {(b, k) for b in (1, 8, 32, 128) for k in (512, 2048, 8192, 32768)}
    for family in FAMILIES:
        load_kernel(family.kernel).problem_type.parse(family.axes)


def test_the_smallest_block_size_within_a_percent_is_named() -> None:
    def point(size: int, us: float) -> dict[str, object]:
        exact = {"block_size": size, "group": 4}
        return {"kernel": "k", "exact": exact, "sizes": {"n": 1}, "time_us": us}

    text = block_size_tables([point(16, 12.0), point(32, 10.05), point(64, 10.0)])
    assert "costs 1.20 x the best; the smallest within 1 % of the best is 32." in text


def test_the_sanitizer_s_summaries_are_read() -> None:
    assert found_errors("========= ERROR SUMMARY: 0 errors\n") == 0
    assert found_errors("========= ERROR SUMMARY: 3 errors\n") == 3
    hazards = "========= RACECHECK SUMMARY: 2 hazards displayed (1 error, 1 warning)\n"
    assert found_errors(hazards) == 1
    assert found_errors("========= Device not supported\n") is None
