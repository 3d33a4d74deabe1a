"""Knobs that an ordinary search leaves alone: who names them, who lists them, what is stored."""

from __future__ import annotations

import pytest
from own_folders import Folders
from toy_kernel import FakeBuilder, ToyKernel, ToyProblem, sound, write_templates

from autotune.arch import GpuArch, lookup
from autotune.cell import Cell
from autotune.config import Config
from autotune.deadline import Deadline
from autotune.errors import UnknownChoiceError, UsageError
from autotune.kernels import KERNELS
from autotune.knob import Constraint, Knob, plain_values
from autotune.progress import Silent
from autotune.records import Evaluation
from autotune.results import ResultsStore
from autotune.space import SearchSpace
from autotune.study import SearchOptions
from autotune.tune import tune

VARIANTS = (
    Knob("load", ("pointer", "descriptor"), "how", ordered=False),
    Knob("sum", ("ordered", "atomic"), "how", ordered=False, unrepeatable=("atomic",)),
)


class VariedKernel(ToyKernel):
    """The toy with two variants; descriptors, which are fast, go with the large tiles only."""

    def space(self, problem: ToyProblem, arch: GpuArch) -> SearchSpace:
        usual = super().space(problem, arch)
        rule = Constraint("too small", ("load", "tile"), lambda a, t: a == "pointer" or t >= 64)
        return SearchSpace(usual.knobs, (*usual.constraints, rule), VARIANTS)


A100, USUAL = lookup("a100"), ToyKernel().space(ToyProblem(), lookup("a100"))
SPACE = VariedKernel().space(ToyProblem(), A100)
SMALL = VariedKernel().default_config(ToyProblem(), A100)
LARGE = SMALL.replace(tile=128)


def test_the_listing_is_that_without_variants() -> None:
    assert SPACE.legal == USUAL.legal
    assert SPACE.rejected == USUAL.rejected
    assert SPACE.binaries == USUAL.binaries
    assert SPACE.cartesian_size == USUAL.cartesian_size
    assert SPACE.neighbours(LARGE) == USUAL.neighbours(LARGE)


def test_configurations_may_name_variants() -> None:
    assert SPACE.why_illegal(LARGE) is None
    assert SPACE.why_illegal({**LARGE, "load": "descriptor"}) is None
    assert SPACE.why_illegal({**SMALL, "load": "descriptor"}) == "too small"
    assert SPACE.why_illegal({**LARGE, "load": "tma"}) is not None
    assert "odd" in str(SPACE.why_illegal({**LARGE, "odd": 1}))
    missing = {name: value for name, value in LARGE.items() if name != "tile"}
    assert "tile" in str(SPACE.why_illegal(missing))
    assert SPACE.config(**LARGE, sum="atomic")["sum"] == "atomic"
    with pytest.raises(UsageError, match="too small"):
        SPACE.config(**SMALL, load="descriptor")
    with pytest.raises(UnknownChoiceError, match="load"):
        SPACE.config(**LARGE, lod="descriptor")


def test_the_wide_space_lists_every_combination() -> None:
    wide = SPACE.widened
    large = [config for config in USUAL.legal if config.number("tile") >= 64]
    assert len(wide.legal) == 2 * (len(USUAL.legal) + len(large))
    assert all(SPACE.why_illegal(config) is None for config in wide.legal)
    assert {wide.stored(c) for c in wide.legal} >= set(USUAL.legal)
    assert len({wide.stored(c) for c in wide.legal}) == len(wide.legal)


def test_naming_and_storing_are_inverse() -> None:
    wide = SPACE.widened
    assert SPACE.named(LARGE) == LARGE
    assert wide.named(LARGE) == LARGE.replace(load="pointer", sum="ordered")
    assert wide.stored(wide.named(LARGE)) == LARGE
    odd = LARGE.replace(load="descriptor")
    assert wide.named(odd)["sum"] == "ordered"
    assert SPACE.stored(wide.named(odd)) == odd


def test_binaries_of_variants_differ() -> None:
    odd = LARGE.replace(sum="atomic")
    assert SPACE.binary_of(odd) != SPACE.binary_of(LARGE)
    assert SPACE.binary_of(odd.replace(load="pointer")) == SPACE.binary_of(odd)
    wide = SPACE.widened
    assert wide.binary_of(odd) in wide.binaries
    assert wide.binary_of(LARGE) in wide.binaries
    assert "splits" not in wide.binary_of(LARGE)


def test_repeatable_spaces_add_nothing_up_as_it_comes() -> None:
    for space in (SPACE.widened.repeatable, SPACE.repeatable.widened):
        assert {config["sum"] for config in space.legal} == {"ordered"}
        assert {config["load"] for config in space.legal} == {"pointer", "descriptor"}
    assert SPACE.repeatable.legal == USUAL.legal
    assert "run to run" in str(SPACE.repeatable.why_illegal({**LARGE, "sum": "atomic"}))


def test_plain_values_fill_what_is_not_named() -> None:
    assert plain_values(VARIANTS, Config({"load": "descriptor"})) == {"sum": "ordered"}


def test_changes_tell_of_knobs_that_one_side_has_not() -> None:
    assert LARGE.replace(load="descriptor").changes_from(SMALL) == [
        "load plain→descriptor",
        "tile 32→128",
    ]


def fast_by_descriptor(config: Config) -> Evaluation:
    loop = {"mma": 1} if config.get("load") == "descriptor" else {"mma": 400}
    return sound(config, loop=loop)


def test_a_search_of_variants_stores_what_is_not_plain(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KERNELS, "toy", "test_space_variants:VariedKernel")
    templates = write_templates(folders.results.parent / "templates")
    store = ResultsStore(folders.results)

    def chosen(variants: bool) -> list[Config]:
        cell = Cell(VariedKernel(), A100, ToyProblem(), variants=variants, repeatable=True)
        builder = FakeBuilder(A100, templates, fast_by_descriptor)
        options = SearchOptions(effort="exhaustive", resume=False)
        (done,) = tune([cell], builder, store, folders.studies, options, Deadline(None), Silent())
        read = store.read("a100", "toy")
        assert ("variants" in done.result.search["space"]) == variants
        return [selection.config for selection in read[0].selections]

    for config in chosen(variants=True):
        assert config["load"] == "descriptor"
        assert "sum" not in config, "plain: not named"
    for config in chosen(variants=False):
        assert set(config) == set(SMALL)
