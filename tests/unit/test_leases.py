"""Trials that several workers share: leased to one, taken over from the dead, recorded once."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from search_cases import BINARIES, KNOBS, SEEDS, finish, objective_us, open_ledger

from autotune.errors import StorageError, UsageError
from autotune.search.candidates import Candidates
from autotune.search.journal import Journal
from autotune.search.leases import EVALUATION, SharedLedger, Watch
from autotune.search.ledger import BATCH_SIZE, Asked, Ledger
from autotune.search.shared import SharedStorage, storage_errors

TRIALS = 20


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"journal:{tmp_path / 'shared'}"


def join(url: str, worker: str, clock: Clock | None = None) -> SharedLedger:
    """One worker's view of the study."""
    shared = SharedStorage.open(url)
    ledger = Ledger.open(
        shared.storage("toy"),
        "toy",
        {"of": "one"},
        Candidates(KNOBS, BINARIES),
        seeds=SEEDS,
        sampler="random",
        seed=0,
        trials=TRIALS,
        resume=True,
    )
    return SharedLedger(
        ledger, lambda: shared.turns.turn("toy"), worker, Watch(60.0, clock or Clock())
    )


def no_settling(batch: Sequence[Asked], notes: Mapping[int, Mapping[str, Any]]) -> None:
    raise AssertionError("no batch is complete")


def settling(ledger: SharedLedger, limit: int) -> tuple[Asked, ...]:
    """Claim, telling complete batches by the made-up objective."""

    def settle(batch: Sequence[Asked], notes: Mapping[int, Mapping[str, Any]]) -> None:
        for asked in batch:
            assert notes[asked.number][EVALUATION] == {"by": "test"}
            value = objective_us(asked.config)
            ledger.ledger.tell(asked, value, "ok" if value else "spills", None if value else "8 B")

    return ledger.claim(limit, settle).trials


def evaluated(trials: Sequence[Asked]) -> list[tuple[Asked, Mapping[str, Any]]]:
    return [(asked, {"by": "test"}) for asked in trials]


@pytest.mark.parametrize("kind", ["journal:{}", "sqlite:///{}/study.db"])
def test_no_trial_is_leased_twice_and_a_batch_ends_before_the_next(
    kind: str, tmp_path: Path
) -> None:
    url = kind.format(tmp_path / "shared")
    one, two = join(url, "one"), join(url, "two")
    first = one.claim(5, no_settling).trials
    second = two.claim(5, no_settling).trials
    assert [a.number for a in first + second] == list(range(BATCH_SIZE))
    assert len(second) == BATCH_SIZE - 5
    assert two.record(evaluated(second)) == 3
    waiting = two.claim(5, no_settling)
    assert waiting.trials == ()
    assert not waiting.over
    assert one.record(evaluated(first)) == 5
    assert [a.number for a in settling(two, 2)] == [BATCH_SIZE, BATCH_SIZE + 1]


def test_many_hands_make_the_same_search(url: str, tmp_path: Path) -> None:
    workers = [join(url, name) for name in "abc"]
    held: dict[int, tuple[Asked, ...]] = dict.fromkeys(range(3), ())
    turn = 0
    while not (claim := workers[turn % 3].claim(0, lambda batch, notes: None)).over:
        assert claim.trials == ()
        mine = workers[turn % 3]
        if held[turn % 3]:
            assert mine.record(evaluated(held[turn % 3])) == len(held[turn % 3])
        held[turn % 3] = settling(mine, 1 + turn % 4)
        turn += 1
        if turn > 200:
            pytest.fail("the search does not end")
        if len(workers[0].ledger.told()) == TRIALS:
            break
    found = [(a.config, objective_us(a.config)) for a in workers[0].ledger.told()]
    assert found == finish(open_ledger(tmp_path / "alone.journal", trials=TRIALS))


def test_the_dead_are_relieved_by_the_clock_of_who_looks(url: str) -> None:
    clock = Clock()
    dead, other = join(url, "dead"), join(url, "other", clock)
    lost = dead.claim(BATCH_SIZE, no_settling).trials
    assert other.claim(BATCH_SIZE, no_settling).trials == (), "seen for the first time"
    clock.now = 59.0
    assert other.claim(BATCH_SIZE, no_settling).trials == ()
    dead.beat()
    clock.now = 100.0
    assert other.claim(BATCH_SIZE, no_settling).trials == (), "it has shown a sign of life"
    clock.now = 160.0
    assert other.claim(BATCH_SIZE, no_settling).trials == lost


def test_who_comes_back_from_the_dead_is_too_late(url: str) -> None:
    clock = Clock()
    slow, other = join(url, "slow"), join(url, "other", clock)
    trials = slow.claim(2, no_settling).trials
    other.claim(0, no_settling)
    other.claim(BATCH_SIZE, no_settling)
    clock.now = 60.0
    taken = other.claim(BATCH_SIZE, no_settling).trials
    assert set(trials) <= set(taken)
    assert slow.record(evaluated(trials)) == 0
    assert other.record(evaluated(taken)) == len(taken)
    assert other.record(evaluated(taken)) == 0, "recorded once"
    slow.release()
    assert len(settling(slow, 3)) == 3


def test_what_is_released_is_free_at_once(url: str) -> None:
    one, two = join(url, "one"), join(url, "two")
    trials = one.claim(4, no_settling).trials
    one.record(evaluated(trials[:1]))
    one.release()
    assert two.claim(BATCH_SIZE, no_settling).trials[0] == trials[1]


def test_a_result_is_stored_once(url: str) -> None:
    clock = Clock()
    one, two = join(url, "one"), join(url, "two", clock)
    assert one.claim_end()
    assert not two.claim_end()
    clock.now = 61.0
    assert two.claim_end(), "the first one is dead"
    assert not one.end("late")
    assert two.end("found")
    assert not two.end("again")
    assert not one.claim_end()
    assert two.ledger.study_notes()["result"] == "found"


def test_half_a_line_of_a_dead_writer_is_cut_off_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "toy.journal"
    journal = Journal(path)
    journal.append_logs([{"op_code": 1}])
    with path.open("ab") as file:
        file.write(b'{"op_code": 2, "half')
    assert list(journal.read_logs(0)) == [{"op_code": 1}]
    Journal(path).append_logs([{"op_code": 3}])
    assert [json.loads(line)["op_code"] for line in path.read_text().splitlines()] == [1, 3]
    assert list(journal.read_logs(0)) == [{"op_code": 1}, {"op_code": 3}]


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("nonsense", "is not a URL"),
        ("mysql://host/db", "is not shared between processes"),
        ("sqlite://", "is not shared between processes"),
        ("journal:", "names no folder"),
        ("journal:/dev/null/x", "Not a directory"),
        ("postgresql://nobody:secret@127.0.0.1:1/x", "onnection refused"),
    ],
)
def test_a_bad_storage_says_what_is_accepted(url: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        SharedStorage.open(url)
    assert "postgresql://USER" in str(caught.value)
    assert "journal:FOLDER" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_missing_driver_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UsageError, match=r"pagetune\[dist\]"):
        SharedStorage.open("postgresql://127.0.0.1:1/x")


def test_a_storage_that_goes_away_is_named(tmp_path: Path) -> None:
    shared = SharedStorage.open(f"sqlite:///{tmp_path}/study.db")
    (tmp_path / "study.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StorageError, match="does not answer any more"), storage_errors():
        shared.notes()
