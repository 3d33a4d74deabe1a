"""Workers that hang, die, babble or raise: the pool answers, goes on, and leaves nobody behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotune.pool import Outcome, Reply, WorkerPool

LONG_S, SHORT_S = 60.0, 1.0
"""Nobody waits for the first; the second is for what never ends."""

HEALTHY = "ENTRY_POINTS = {}\n"
HANGS = "import time\ntime.sleep(600)\n"
DIES = "import os\nos._exit(3)\n"
DIES_WITH_WORDS = (
    "import os, sys\nsys.stderr.write('first\\nlast words\\n')\nsys.stderr.flush()\nos._exit(1)\n"
)
EXITS = "raise SystemExit('enough')\n"
RAISES = "raise RuntimeError('not today')\n"
BABBLES = (
    "import os, subprocess\n"
    'print(\'{"status": "ok", "reports": [1, 2]}\', flush=True)\n'
    "os.write(1, b'noise\\n' * 10000)\n"
    "subprocess.run(['echo', 'more noise'], check=True)\n"
) + HEALTHY


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(1) as found:
        yield found


class Sources:
    """Rendered files, as a worker sees them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def request(self, source: str) -> dict[str, str]:
        path = self.folder / f"source_{len(list(self.folder.iterdir()))}.py"
        path.write_text(source)
        return {"op": "compile", "gpu": "a100", "path": str(path)}

    def pid_request(self, source: str) -> tuple[dict[str, str], Path]:
        """A request that first writes the worker's process id to the file returned."""
        note = self.folder / f"pid_{len(list(self.folder.iterdir()))}"
        head = f"import os, pathlib\npathlib.Path({str(note)!r}).write_text(str(os.getpid()))\n"
        return self.request(head + source), note


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    folder = tmp_path / "sources"
    folder.mkdir()
    return Sources(folder)


def ask(pool: WorkerPool, request: dict[str, str], timeout_s: float = LONG_S) -> Reply:
    ((index, reply),) = pool.run([request], timeout_s)
    assert index == 0
    return reply


def alive(pid: int) -> bool:
    """Whether a process runs: a zombie that nobody has collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_for_end(pid: int) -> None:
    for _ in range(600):
        if not alive(pid):
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} still runs")


@pytest.mark.parametrize(
    ("source", "timeout_s", "outcome", "detail"),
    [
        (HANGS, SHORT_S, Outcome.TIMED_OUT, "no answer within 1 s"),
        (DIES, LONG_S, Outcome.CRASHED, "exit status 3"),
        (DIES_WITH_WORDS, LONG_S, Outcome.CRASHED, "last words"),
        (EXITS, LONG_S, Outcome.CRASHED, "enough"),
    ],
)
def test_a_lost_worker_is_reported_and_replaced(
    pool: WorkerPool, sources: Sources, source: str, timeout_s: float, outcome: Outcome, detail: str
) -> None:
    reply = ask(pool, sources.request(source), timeout_s)
    assert (reply.outcome, reply.detail) == (outcome, detail)
    assert reply.answer == {}
    after = ask(pool, sources.request(RAISES))
    assert after.outcome is Outcome.ANSWERED


def test_an_exception_is_an_answer_and_the_worker_stays(pool: WorkerPool, sources: Sources) -> None:
    first, note = sources.pid_request(RAISES)
    reply = ask(pool, first)
    assert reply.outcome is Outcome.ANSWERED
    assert reply.answer["status"] == "compile_error"
    assert "not today" in reply.answer["reason"]
    assert f"{first['path']}:3" in reply.answer["reason"]
    second, other = sources.pid_request(RAISES)
    ask(pool, second)
    assert other.read_text() == note.read_text()


def test_what_a_kernel_prints_is_no_answer(pool: WorkerPool, sources: Sources) -> None:
    reply = ask(pool, sources.request(BABBLES))
    assert reply.outcome is Outcome.ANSWERED
    assert (reply.answer["status"], reply.answer["reports"]) == ("ok", [])


def test_every_request_is_answered_once(sources: Sources) -> None:
    texts = [RAISES, DIES, RAISES, RAISES, DIES, RAISES]
    with WorkerPool(2) as pool:
        replies = dict(pool.run([sources.request(text) for text in texts], LONG_S))
    assert {index: reply.outcome for index, reply in replies.items()} == {
        index: Outcome.CRASHED if text == DIES else Outcome.ANSWERED
        for index, text in enumerate(texts)
    }


def test_no_requests_start_no_worker(pool: WorkerPool) -> None:
    assert list(pool.run([], LONG_S)) == []


def test_a_worker_that_died_while_idle_is_not_the_next_requests_fault(
    pool: WorkerPool, sources: Sources
) -> None:
    request, note = sources.pid_request(RAISES)
    ask(pool, request)
    pid = int(note.read_text())
    os.kill(pid, signal.SIGKILL)
    # A zombie can still have threads that end, and until then it does not count as dead.
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ask(pool, sources.request(RAISES)).outcome is Outcome.ANSWERED


def test_a_run_that_is_given_up_leaves_no_stale_answer(sources: Sources) -> None:
    slow = "import time\ntime.sleep(1)\nraise RuntimeError('stale')\n"
    with WorkerPool(2) as pool:
        for _ in pool.run([sources.request(RAISES), sources.request(slow)], LONG_S):
            break
        again = [sources.request(RAISES) for _ in range(2)]
        replies = [reply for _, reply in pool.run(again, LONG_S)]
    assert ["not today" in reply.answer["reason"] for reply in replies] == [True, True]


def test_a_timeout_ends_what_the_worker_started(pool: WorkerPool, sources: Sources) -> None:
    ask(pool, sources.request(RAISES))  # started by now: the time is for the request alone
    note = sources.folder / "grandchild"
    request = sources.request(
        "import pathlib, subprocess\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        f"pathlib.Path({str(note)!r}).write_text(str(child.pid))\n" + HANGS
    )
    assert ask(pool, request, 2 * SHORT_S).outcome is Outcome.TIMED_OUT
    wait_for_end(int(note.read_text()))


def test_closing_leaves_no_process(sources: Sources) -> None:
    with WorkerPool(2) as pool:
        requests, notes = zip(*(sources.pid_request(RAISES) for _ in range(2)), strict=True)
        assert len(list(pool.run(requests, LONG_S))) == 2
        pids = [int(note.read_text()) for note in notes]
        assert all(alive(pid) for pid in pids)
    assert not any(alive(pid) for pid in pids)


def test_workers_end_with_a_parent_that_is_killed(sources: Sources) -> None:
    request, note = sources.pid_request(RAISES)
    code = (
        "import os, signal\nfrom autotune.pool import WorkerPool\n"
        f"list(WorkerPool(1).run([{request!r}], {LONG_S}))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    wait_for_end(int(note.read_text()))
