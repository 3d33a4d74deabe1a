"""`autotune gate` as a caller meets it: recordings, reports, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from autotune.cli import main
from autotune.gate.finding import Finding
from autotune.gate.report import to_junit, to_markdown
from autotune.gate.verdict import Verdict
from autotune.paths import data_dir

ROOT = Path(__file__).parents[2]


def recording(path: Path, cpu: str = "a CPU", **medians: float) -> Path:
    """A file of pytest-benchmark with samples around each median, seconds."""
    wobble = [1.0 + 0.01 * (number % 5 - 2) for number in range(25)]
    path.write_text(
        json.dumps(
            {
                "machine_info": {"cpu": {"brand_raw": cpu, "count": 2}},
                "benchmarks": [
                    {"fullname": name, "stats": {"data": [median * w for w in wobble]}}
                    for name, median in medians.items()
                ],
            }
        )
    )
    return path


def gate(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, dict[str, Any]]:
    code = main(["gate", *map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_recordings_are_judged_benchmark_by_benchmark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = recording(tmp_path / "a.json", fast=1.0, slow=1.0, gone=1.0, canary=1.0)
    after = recording(tmp_path / "b.json", fast=0.5, slow=1.5, new=1.0, canary=1.0)
    code, report = gate(capsys, before, after)
    assert code == 1
    assert {f["kernel"]: f["verdict"] for f in report["findings"]} == {
        "fast": "faster",
        "slow": "slower",
        "gone": "missing",
        "new": "new",
        "canary": "same",
    }
    code, report = gate(capsys, before, before)
    assert (code, report["counts"]) == (0, {"same": 4})


def test_a_smaller_change_counts_where_the_caller_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = recording(tmp_path / "a.json", step=1.0)
    after = recording(tmp_path / "b.json", step=1.06)
    assert gate(capsys, before, after)[0] == 0
    assert gate(capsys, before, after, "--least-change", "2")[0] == 1


def test_other_machines_and_moved_canaries_are_incomparable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = recording(tmp_path / "a.json", step=1.0, canary=1.0)
    elsewhere = recording(tmp_path / "b.json", cpu="another CPU", step=2.0, canary=1.0)
    code, report = gate(capsys, before, elsewhere)
    assert (code, report["counts"]) == (0, {"incomparable": 2})
    throttled = recording(tmp_path / "c.json", step=2.0, canary=1.5)
    code, report = gate(capsys, before, throttled)
    assert (code, report["counts"]) == (0, {"incomparable": 2})


def test_a_short_baseline_judges_like_the_recording_it_was_made_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = recording(tmp_path / "long.json", step=1.0, canary=1.0)
    data = json.loads(long.read_text())
    data["benchmarks"][0]["stats"]["data"] *= 40  # 1,000 samples
    long.write_text(json.dumps(data))
    short = tmp_path / "short.json"
    words = [sys.executable, ROOT / "ci/bench_baseline.py", long, short]
    subprocess.run(list(map(str, words)), check=True)
    assert len(json.loads(short.read_text())["samples_us"]["step"]) == 30
    assert gate(capsys, short, long)[0] == 0
    code, report = gate(capsys, short, recording(tmp_path / "b.json", step=1.5, canary=1.0))
    assert code == 1
    assert {f["kernel"]: f["verdict"] for f in report["findings"]} == {
        "step": "slower",
        "canary": "same",
    }
    elsewhere = recording(tmp_path / "c.json", cpu="another CPU", step=1.5, canary=1.0)
    code, report = gate(capsys, short, elsewhere)
    assert (code, report["counts"]) == (0, {"incomparable": 2})


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"machine_info": {"cpu": {}}, "benchmarks": [{"fullname": "x", "stats": {}}]}',
     '{"machine_info": {"cpu": {}}, "benchmarks": [{"fullname": "x", "stats": {"data": [0]}}]}',
     '{"machine_info": {"cpu": {}}, "benchmarks": [{"fullname": "x", "stats": {"data": []}}]}'],
)  # fmt: skip
def test_a_bad_recording_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text(text)
    assert main(["gate", str(recording(tmp_path / "a.json", x=1.0)), str(bad)]) == 4
    assert "bad.json" in capsys.readouterr().err


def test_wrong_words_exit_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    checkout = tmp_path / "checkout"
    shutil.copytree(data_dir("templates"), checkout / "templates")
    shutil.copytree(data_dir("results"), checkout / "results")
    for words in (
        [tmp_path / "nowhere", checkout],
        [tmp_path / "empty", checkout],
        [checkout, checkout, "--gpu", "a1000"],
        [checkout, checkout, "--kernel", "decode"],
        [data_dir("templates").parent / "templates", checkout],
        [checkout, checkout, "--gpu", "l4"],
        [checkout, checkout, "--accept", "speed"],
        [checkout, checkout, "--markdown", tmp_path],
        [checkout, checkout, "--junit", checkout / "results" / "a100" / "fused_mlp.json" / "x.xml"],
    ):
        assert main(["gate", *map(str, words), "--static-only"]) == 2, words
    told = capsys.readouterr().err
    assert "Did you mean" in told
    assert "nothing to compare" in told
    assert "Choices: binary_bytes" in told
    assert "is a folder" in told
    assert "cannot write" in told


def test_what_was_found_is_printed_even_where_the_report_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    words = [recording(tmp_path / "a.json", x=1.0), recording(tmp_path / "b.json", x=2.0)]
    assert main(["gate", *map(str, words), "--markdown", str(tmp_path / "gate.md")]) == 1
    printed = capsys.readouterr()
    assert "gate FAILED: 1 slower" in printed.out
    assert "No space left on device" in printed.err


def test_a_timed_gate_without_a_gpu_does_not_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results" / "a100"
    results.mkdir(parents=True)
    (tmp_path / "templates").symlink_to(data_dir("templates"))
    shutil.copy(data_dir("results") / "a100" / "fused_mlp.json", results)
    path = results / "fused_mlp.json"
    data = json.loads(path.read_text())
    data["cells"] = []
    path.write_text(json.dumps(data))
    assert main(["gate", str(tmp_path), str(tmp_path)]) == 3
    assert "--static-only" in capsys.readouterr().err


def findings(count: int) -> list[Finding]:
    return [
        Finding(Verdict.WORSE, "a100", "k", f"cell|{n}", "registers 1 → 2 " + "x" * 200)
        for n in range(count)
    ] + [Finding(Verdict.SAME, "a100", "k", "quiet", "as pinned")]


def test_markdown_fits_a_comment_and_counts_what_it_leaves_out() -> None:
    text = to_markdown(findings(1000))
    assert len(text.encode()) <= 64 * 1024
    assert "**failed**" in text
    assert "more are in the JSON report" in text
    assert "quiet" not in text
    assert "cell\\|0" in text
    assert "passed" in to_markdown(findings(0))


def test_junit_has_a_case_for_every_finding() -> None:
    suite = ElementTree.fromstring(to_junit(findings(3)))
    assert (suite.get("tests"), suite.get("failures")) == ("4", "3")
    assert len(suite.findall("testcase/failure")) == 3


def test_reports_are_written_where_they_were_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = recording(tmp_path / "a.json", step=1.0)
    after = recording(tmp_path / "b.json", step=2.0)
    words = ["--markdown", str(tmp_path / "gate.md"), "--junit", str(tmp_path / "gate.xml")]
    assert main(["gate", str(before), str(after), *words]) == 1
    assert "gate FAILED: 1 slower" in capsys.readouterr().out
    assert "slower" in (tmp_path / "gate.md").read_text()
    assert "slower" in (tmp_path / "gate.xml").read_text()
