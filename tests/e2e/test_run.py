"""`autotune run` and `autotune show` as a user starts them: processes, files, signals."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from own_folders import Folders

from autotune.paths import data_dir
from autotune.results import ResultsStore

KERNEL = "paged_attention_decode"
TRIALS = 6
RUN = ("run", "--gpu", "a100", "--kernel", KERNEL, "--block-size", "16", "--effort", "predict",
       "--trials", str(TRIALS), "--jobs", "2")  # fmt: skip
SHOW = ("show", KERNEL, "--gpu", "a100")


def start(folders: Folders, *words: str) -> subprocess.Popen[str]:
    """Start a command in folders of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "autotune", *words],
        env={**os.environ, **folders.variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Standard output and error of a command that has to succeed."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out, err


def results_file(folders: Folders) -> Path:
    return ResultsStore(folders.results).path("a100", KERNEL)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders.below(tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="module")
def printed(first: Folders) -> tuple[str, str]:
    """What a first run prints."""
    return finish(start(first, *RUN))


def test_a_run_writes_valid_results(first: Folders, printed: tuple[str, str]) -> None:
    (cell,) = ResultsStore(first.results).read("a100", KERNEL)
    assert cell.exact["block_size"] == 16
    assert sum(cell.search["outcomes"].values()) == TRIALS
    assert cell.search["outcomes"]["ok"] >= 1
    assert all(selection.provenance == "predicted" for selection in cell.selections)


def test_the_table_goes_to_stdout_and_progress_to_stderr(
    first: Folders, printed: tuple[str, str]
) -> None:
    out, err = printed
    assert f"{KERNEL} on a100 (predicted)" in out
    assert f"{TRIALS} candidates judged" in out
    assert str(results_file(first)) in out
    assert f"1 cells, {TRIALS} candidates, effort predict" in err
    assert "1 cells" not in out
    assert "\x1b" not in out + err, "no terminal, no escape codes"


def test_the_same_seed_gives_the_same_bytes(
    first: Folders, printed: tuple[str, str], tmp_path: Path
) -> None:
    again = Folders(first.cache, tmp_path / "results", tmp_path / "studies")
    out, err = finish(start(again, *RUN, "--json"))
    assert results_file(again).read_bytes() == results_file(first).read_bytes()
    document = json.loads(out)
    assert document["compiled"] == 0, "all compilations are remembered"
    assert err == ""


def test_an_interrupted_run_resumes_to_the_same_bytes(
    first: Folders, printed: tuple[str, str], tmp_path: Path
) -> None:
    other = Folders.below(tmp_path)  # an empty cache: everything is compiled again
    process = start(other, *RUN)
    while process.poll() is None and not list(other.cache.glob("reports/*/*.json")):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "--resume" in err
    assert "Traceback" not in err
    assert list(other.studies.glob("*.journal"))
    assert not results_file(other).exists()
    finish(start(other, *RUN, "--resume"))
    assert results_file(other).read_bytes() == results_file(first).read_bytes()


def test_a_killed_run_resumes_to_the_same_bytes(
    first: Folders, printed: tuple[str, str], tmp_path: Path
) -> None:
    other = Folders(first.cache, tmp_path / "results", tmp_path / "studies")
    process = start(other, *RUN)
    while process.poll() is None and not list(other.studies.glob("*.journal")):
        time.sleep(0.005)
    process.kill()
    process.communicate(timeout=60)
    finish(start(other, *RUN, "--resume"))
    assert results_file(other).read_bytes() == results_file(first).read_bytes()


def test_a_full_disk_leaves_the_old_results_and_the_run_goes_on_later(
    first: Folders, printed: tuple[str, str], tmp_path: Path
) -> None:
    other = Folders(first.cache, tmp_path / "results", tmp_path / "studies")
    old = results_file(other)
    old.parent.mkdir(parents=True)
    content = ResultsStore(data_dir("results")).path("a100", KERNEL).read_bytes()
    old.write_bytes(content)
    # No file may grow beyond so many blocks: to a program, a disk that is full.
    command = shlex.join([sys.executable, "-m", "autotune", *RUN])
    process = subprocess.run(
        ["bash", "-c", f"ulimit -f 4; exec {command}"],
        env={**os.environ, **other.variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1, process.stderr
    assert "Traceback" not in process.stderr
    assert "free some space" in process.stderr
    assert str(other.studies) in process.stderr
    assert old.read_bytes() == content
    old.unlink()
    finish(start(other, *RUN, "--resume"))
    assert old.read_bytes() == results_file(first).read_bytes()


@pytest.mark.parametrize("trouble", ["folder", "content"])
def test_results_that_cannot_be_written_are_refused_before_the_search(
    tmp_path: Path, trouble: str
) -> None:
    folders = Folders.below(tmp_path)
    if trouble == "folder":
        folders.results.write_text("a file in the place of the folder")
    else:
        results_file(folders).parent.mkdir(parents=True)
        results_file(folders).write_text('{"schema": 1')
    process = start(folders, *RUN)
    _, err = process.communicate(timeout=60)
    assert process.returncode == {"folder": 1, "content": 4}[trouble], err
    assert str(folders.results) in err
    assert "Traceback" not in err
    assert not folders.studies.exists()


def test_the_facts_of_a_selection(first: Folders, printed: tuple[str, str]) -> None:
    out, _ = finish(start(first, *SHOW, "--facts", "--problem", "block_size=16,num_seqs=1"))
    assert "predicted on a100" in out
    assert "verdict  sound" in out
    assert "main loop, per warp" in out
    facts, _ = finish(start(first, *SHOW, "--facts", "--json", "--problem", "num_seqs=1"))
    document = json.loads(facts)
    assert document["fault"] is None
    (cell,) = ResultsStore(first.results).read("a100", KERNEL)
    stored = {report.binary_sha for s in cell.selections for report in s.reports}
    assert document["reports"][0]["binary_sha"] in stored, "shown is what was judged"


def test_a_closed_pipe_is_no_error(first: Folders, printed: tuple[str, str]) -> None:
    process = start(first, *SHOW, "--source")
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
