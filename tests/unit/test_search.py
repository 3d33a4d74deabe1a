"""Searches: legal and unseen proposals only, the same ones per seed, the same after any kill."""

from __future__ import annotations

import itertools
from pathlib import Path

import optuna
import pytest
from search_cases import (
    BINARIES,
    KNOBS,
    SEEDS,
    SPACE,
    Told,
    asked_by,
    finish,
    journal_values,
    objective_us,
    open_ledger,
)

from autotune.effort import SAMPLERS
from autotune.errors import StorageError, UnknownChoiceError, UsageError
from autotune.knob import Knob
from autotune.search.candidates import Candidates
from autotune.search.journal import Journal, repair_journal
from autotune.search.ledger import BATCH_SIZE, open_storage
from autotune.space import SearchSpace

# The Gaussian process takes seconds per fit: enough trials for two of them (10 are start-up).
TRIALS = {name: 12 if name == "gp" else 26 for name in SAMPLERS}


@pytest.fixture(scope="module", params=SAMPLERS)
def sampler(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def undisturbed(sampler: str, tmp_path_factory: pytest.TempPathFactory) -> list[Told]:
    """A whole search, from a fresh journal."""
    journal = tmp_path_factory.mktemp("study") / "toy.journal"
    return finish(open_ledger(journal, sampler, TRIALS[sampler]))


def test_proposals_are_legal_and_never_repeat(sampler: str, undisturbed: list[Told]) -> None:
    configs = [config for config, _ in undisturbed]
    assert len(configs) == TRIALS[sampler]
    assert set(configs) <= set(BINARIES)
    assert len(set(configs)) == len(configs)


def test_seeds_come_first(undisturbed: list[Told]) -> None:
    assert tuple(config for config, _ in undisturbed[: len(SEEDS)]) == SEEDS


def test_the_same_seed_asks_the_same(sampler: str, undisturbed: list[Told], tmp_path: Path) -> None:
    again = finish(open_ledger(tmp_path / "toy.journal", sampler, TRIALS[sampler]))
    assert again == undisturbed


def test_another_seed_asks_something_else(
    sampler: str, undisturbed: list[Told], tmp_path: Path
) -> None:
    ledger = open_ledger(tmp_path / "toy.journal", sampler, BATCH_SIZE, seed=1)
    assert finish(ledger) != undisturbed[:BATCH_SIZE]


@pytest.mark.parametrize("trials", [len(BINARIES), 10 * len(BINARIES)])
@pytest.mark.parametrize("name", ["random", "forest"])
def test_enough_trials_exhaust_the_space(tmp_path: Path, name: str, trials: int) -> None:
    ledger = open_ledger(tmp_path / "toy.journal", name, trials)
    assert ledger.total_trials == len(BINARIES)
    told = finish(ledger)
    assert {config for config, _ in told} == set(BINARIES)
    assert len(told) == len(BINARIES)
    assert ledger.next_batch() == []


def test_batches_are_asked_in_full_before_any_is_told(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "toy.journal", trials=BATCH_SIZE + 3)
    sizes = []
    while batch := ledger.next_batch():
        sizes.append(len(batch))
        for asked in batch:
            ledger.tell(asked, 1.0, "ok", None)
    assert sizes == [BATCH_SIZE, 3]


def resumed(journal: Path, sampler: str, trials: int) -> list[Told]:
    return finish(open_ledger(journal, sampler, trials, resume=True))


@pytest.mark.parametrize("name", ["random", "tpe", "nsga2", "classifier", "blend"])
def test_a_ledger_dropped_after_any_tell_goes_on(tmp_path: Path, name: str) -> None:
    trials = 20
    expected = finish(open_ledger(tmp_path / "whole.journal", name, trials))
    for told in range(0, trials + 1, 1 if name == "random" else 7):
        journal = tmp_path / f"after {told}.journal"
        for _ in itertools.islice(asked_by(open_ledger(journal, name, trials)), told):
            pass
        before = journal_values(journal)
        assert resumed(journal, name, trials) == expected
        assert journal_values(journal)[: len(before)] == before, "told trials are not told again"


@pytest.mark.parametrize(
    ("name", "step", "torn"),
    [("random", 1, 0), ("random", 7, 30), ("forest", 13, 5), ("blend", 29, 5), ("tpe", 13, 0)],
)
def test_a_journal_cut_anywhere_goes_on(tmp_path: Path, name: str, step: int, torn: int) -> None:
    """A kill -9 leaves a prefix of the journal, maybe with half a line more."""
    trials = BATCH_SIZE + 3 if step == 1 else 20
    whole = tmp_path / "whole.journal"
    expected = finish(open_ledger(whole, name, trials))
    lines = whole.read_bytes().splitlines(keepends=True)
    assert len(lines) > 60
    for kept in range(0, len(lines), step):
        journal = tmp_path / f"{kept}.journal"
        journal.write_bytes(b"".join(lines[:kept]) + lines[kept][:torn])
        assert resumed(journal, name, trials) == expected, f"cut after line {kept}"


def test_a_search_that_is_over_asks_nothing_more(tmp_path: Path) -> None:
    journal = tmp_path / "toy.journal"
    expected = finish(open_ledger(journal))
    before = journal.read_bytes()
    ledger = open_ledger(journal, resume=True)
    assert ledger.next_batch() == []
    assert [(asked.config, objective_us(asked.config)) for asked in ledger.told()] == expected
    assert journal_values(journal) == [value for _, value in expected if value is not None]
    assert journal.read_bytes().startswith(before)


@pytest.mark.parametrize(("identity", "resume"), [("another", True), ("one", False)])
def test_another_identity_or_no_resume_starts_over(
    tmp_path: Path, identity: str, resume: bool
) -> None:
    journal = tmp_path / "toy.journal"
    finish(open_ledger(journal))
    ledger = open_ledger(journal, identity=identity, resume=resume)
    assert ledger.told() == []
    assert len(finish(ledger)) == 20


def test_a_database_gives_the_same_search(tmp_path: Path) -> None:
    journal, url = tmp_path / "toy.journal", f"sqlite:///{tmp_path}/study.db"
    expected = finish(open_ledger(journal, trials=10))
    for _ in itertools.islice(asked_by(open_ledger(tmp_path / "unused", trials=10, url=url)), 4):
        pass
    ledger = open_ledger(tmp_path / "unused", trials=10, url=url, resume=True)
    assert finish(ledger) == expected
    assert not (tmp_path / "unused").exists()


def test_failures_are_told_as_pruned_with_their_reason(tmp_path: Path) -> None:
    journal = tmp_path / "toy.journal"
    ledger = open_ledger(journal, trials=BATCH_SIZE)
    good, bad, *_ = ledger.next_batch()
    ledger.tell(good, 3.5, "ok", None, registers=96, shared_bytes=None)
    ledger.tell(bad, None, "spills", "8 B of stack")
    storage = open_storage(None, journal, fresh=False)
    one, other, third, *_ = optuna.load_study(study_name="toy", storage=storage).trials
    assert (one.state, one.value) == (optuna.trial.TrialState.COMPLETE, 3.5)
    assert one.user_attrs == {"status": "ok", "registers": 96}
    assert (other.state, other.value) == (optuna.trial.TrialState.PRUNED, None)
    assert other.user_attrs == {"status": "spills", "reason": "8 B of stack"}
    assert third.state is optuna.trial.TrialState.RUNNING


def test_an_unknown_sampler_lists_the_choices(tmp_path: Path) -> None:
    with pytest.raises(UnknownChoiceError, match="classifier, forest, gp, nsga2, random, tpe"):
        open_ledger(tmp_path / "toy.journal", "anneal")


@pytest.mark.parametrize(
    "url", ["nonsense", "", "nosuchdb://host/x", "sqlite:////no/such/folder/x"]
)
def test_a_bad_storage_url_is_a_usage_error(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="--storage"):
        open_storage(url, tmp_path / "unused", fresh=False)


def test_a_study_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file/toy\.journal"):
        open_storage(None, tmp_path / "file" / "toy.journal", fresh=True)


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b"", b""),
        (b'{"a":1}\n{"b":2}\n', b'{"a":1}\n{"b":2}\n'),
        (b'{"a":1}\n{"b":', b'{"a":1}\n'),
        (b'{"a":1}\n{"b":2}', b'{"a":1}\n'),
        (b'{"a":1}\n{"b"\n{"c":3}\n', b'{"a":1}\n'),
        (b'{"a":1}\n\x00\x00\x00\x00', b'{"a":1}\n'),
        (b'{"a":1}\n\xff\xfe\n', b'{"a":1}\n'),
    ],
)
def test_a_torn_line_is_cut_off(tmp_path: Path, content: bytes, kept: bytes) -> None:
    journal = tmp_path / "toy.journal"
    journal.write_bytes(content)
    assert repair_journal(journal) == len(content) - len(kept)
    assert journal.read_bytes() == kept


def test_a_full_disk_is_named() -> None:
    with pytest.raises(StorageError, match="cannot write the study file /dev/full"):
        Journal(Path("/dev/full")).append_logs([{"op_code": 0}])


def test_no_journal_needs_no_repair(tmp_path: Path) -> None:
    assert repair_journal(tmp_path / "absent") == 0


def test_candidates_agree_with_the_space() -> None:
    host_free = tuple(config for config in SPACE.legal if config["splits"] == 1)
    every = Candidates(SPACE.knobs, host_free)
    for index, config in enumerate(host_free):
        assert every.index(config) == index
        near = {host_free[i] for i in every.neighbours(index)}
        assert near == set(SPACE.neighbours(config)) & set(host_free)


def test_nearest_is_the_allowed_one_with_fewest_steps() -> None:
    every = Candidates(KNOBS, BINARIES)
    allowed = every.positions[:, 0] > 0  # all but tile 16
    wanted = BINARIES[0]
    assert wanted["tile"] == 16
    found = BINARIES[every.nearest(dict(wanted), allowed)]
    assert found == wanted.replace(tile=32)


@pytest.mark.parametrize(
    ("knob", "kind"),
    [
        (Knob("k", (1, 2, 4), "powers of two"), {"low": 1, "high": 4, "log": True}),
        (Knob("k", (1, 2, 3), "plain numbers"), {"low": 1, "high": 3, "log": False}),
        (Knob("k", (0, 4), "with zero"), {"low": 0, "high": 4, "log": False}),
        (Knob("k", (False, True), "switch"), {"choices": (False, True)}),
        (Knob("k", (8, 16), "names", ordered=False), {"choices": (8, 16)}),
        (Knob("k", ("a", "b"), "ladder of words"), {"choices": ("a", "b")}),
    ],
)
def test_knobs_become_distributions(knob: Knob, kind: dict[str, object]) -> None:
    space = SearchSpace((knob,))
    distribution = Candidates((knob,), space.legal).distributions["k"]
    assert {name: getattr(distribution, name) for name in kind} == kind
