"""Compile reports on disk: found again for the same text, target and tools, and only then."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from record_cases import make_report
from toy_kernel import ToyKernel, ToyProblem, sound, write_templates

from autotune.arch import GpuArch, lookup
from autotune.records import Environment, Evaluation, Status
from autotune.render import RenderedKernel
from autotune.report_cache import ReportCache

A100 = lookup("a100")
TOOLS = Environment(triton="3.6.0", assembler="ptxas 13.1.80")
CONFIG = ToyKernel().default_config(ToyProblem(), A100)
REFUSED = Evaluation(CONFIG, Status.COMPILE_ERROR, "line 3: no")


@pytest.fixture
def rendered(tmp_path: Path) -> RenderedKernel:
    return write_templates(tmp_path / "templates").render(ToyKernel(), ToyProblem(), CONFIG)


def cache(folder: Path, arch: GpuArch = A100, tools: Environment = TOOLS) -> ReportCache:
    return ReportCache(folder, arch, tools)


@pytest.mark.parametrize("evaluation", [sound(CONFIG), REFUSED])
def test_a_finished_compilation_is_found_again(
    tmp_path: Path, rendered: RenderedKernel, evaluation: Evaluation
) -> None:
    assert cache(tmp_path).get(rendered, CONFIG) is None
    cache(tmp_path).put(rendered, evaluation)
    assert cache(tmp_path).get(rendered, CONFIG) == evaluation


def test_host_knobs_share_an_entry(tmp_path: Path, rendered: RenderedKernel) -> None:
    cache(tmp_path).put(rendered, sound(CONFIG))
    other = CONFIG.replace(splits=4)
    found = cache(tmp_path).get(rendered, other)
    assert found is not None
    assert found.config == other
    assert found.reports == sound(CONFIG).reports


def test_gpus_of_one_target_share_an_entry(tmp_path: Path, rendered: RenderedKernel) -> None:
    cache(tmp_path).put(rendered, sound(CONFIG))
    assert cache(tmp_path, lookup("a100-40gb")).get(rendered, CONFIG) is not None
    assert cache(tmp_path, lookup("rtx3090")).get(rendered, CONFIG) is None


@pytest.mark.parametrize("tool", ["triton", "assembler"])
def test_another_toolchain_is_a_miss(tmp_path: Path, rendered: RenderedKernel, tool: str) -> None:
    cache(tmp_path).put(rendered, sound(CONFIG))
    other = dataclasses.replace(TOOLS, **{tool: "4.0"})
    assert cache(tmp_path, tools=other).get(rendered, CONFIG) is None


def test_other_source_is_a_miss(tmp_path: Path, rendered: RenderedKernel) -> None:
    cache(tmp_path).put(rendered, sound(CONFIG))
    changed = dataclasses.replace(rendered, source=rendered.source + "X = 1\n")
    assert cache(tmp_path).get(changed, CONFIG) is None


@pytest.mark.parametrize(
    "status", [s for s in Status if s not in (Status.OK, Status.COMPILE_ERROR, Status.DUPLICATE)]
)
def test_timeouts_and_crashes_are_not_remembered(
    tmp_path: Path, rendered: RenderedKernel, status: Status
) -> None:
    cache(tmp_path).put(rendered, Evaluation(CONFIG, status, "because", (make_report(),)))
    assert cache(tmp_path).get(rendered, CONFIG) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        b'{"status": "ok", "reason": null',
        b'{"status": "ok", "reason": null, "reports": []}',
        b'{"status": "ok", "reason": null, "reports": [{}]}',
        b'{"status": "ok", "reason": null, "reports": ["x"]}',
        b'{"status": "ok", "reason": null, "reports": 3}',
        b'{"status": "wonderful", "reason": "x", "reports": []}',
        b'{"status": "compile_error", "reason": null, "reports": []}',
        b'{"reports": []}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_entry_is_a_miss_and_is_replaced(
    tmp_path: Path, rendered: RenderedKernel, content: bytes
) -> None:
    cache(tmp_path).put(rendered, sound(CONFIG))
    (entry,) = (tmp_path / "reports").rglob("*.json")
    entry.write_bytes(content)
    assert cache(tmp_path).get(rendered, CONFIG) is None
    cache(tmp_path).put(rendered, sound(CONFIG))
    assert cache(tmp_path).get(rendered, CONFIG) == sound(CONFIG)
