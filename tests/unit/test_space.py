"""Search spaces against brute force, and the questions that samplers ask of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.config import Config, KnobValue
from autotune.errors import UnknownChoiceError, UsageError
from autotune.knob import Constraint, Knob, grid
from autotune.space import SearchSpace

NAMES = ("a", "b", "c", "d")


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """Two to four knobs with up to four values; up to three rules over any subset of knobs."""
    knobs = tuple(
        Knob(
            name,
            tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4, unique=True))),
            "meaning",
            ordered=draw(st.booleans()),
            host=index > 0 and draw(st.booleans()),
        )
        for index, name in enumerate(NAMES[: draw(st.integers(2, 4))])
    )
    names = [knob.name for knob in knobs]
    constraints = []
    for number in range(draw(st.integers(0, 3))):
        subset = tuple(draw(st.lists(st.sampled_from(names), unique=True)))
        modulus, rest = draw(st.integers(2, 4)), draw(st.integers(0, 3))
        constraints.append(
            Constraint(
                f"rule {number}", subset, lambda *v, m=modulus, r=rest: (sum(v) + r) % m != 0
            )
        )
    return SearchSpace(knobs, tuple(constraints))


def brute_force(space: SearchSpace) -> list[Config]:
    """Every combination that no rule forbids."""
    combinations = itertools.product(*(knob.values for knob in space.knobs))
    names = [knob.name for knob in space.knobs]
    every = (dict(zip(names, values, strict=True)) for values in combinations)
    return [
        Config(values)
        for values in every
        if all(rule.holds(*(values[n] for n in rule.knobs)) for rule in space.constraints)
    ]


def tiles() -> SearchSpace:
    """A small space with each kind of knob and one rule."""
    return SearchSpace(
        (
            Knob("tile", (16, 32, 64), "tokens"),
            Knob("mode", ("x", "y", "z"), "a name", ordered=False),
            Knob("fast", (False, True), "a switch"),
            Knob("splits", (1, 2, 4), "ranges", host=True),
        ),
        (Constraint("big tiles are slow", ("tile", "fast"), lambda t, f: not f or t < 64),),
    )


@given(spaces())
def test_enumeration_is_the_filtered_product(space: SearchSpace) -> None:
    assert list(space.legal) == brute_force(space)


@given(spaces())
def test_rejected_counts_fill_the_product(space: SearchSpace) -> None:
    assert sum(space.rejected.values()) == space.cartesian_size - len(space.legal)
    assert set(space.rejected) <= {rule.reason for rule in space.constraints}


@given(spaces())
def test_a_reason_is_given_exactly_for_what_is_outside(space: SearchSpace) -> None:
    for values in itertools.product(*(knob.values for knob in space.knobs)):
        config = Config(dict(zip((knob.name for knob in space.knobs), values, strict=True)))
        assert (space.why_illegal(config) is None) == (config in space)


@given(spaces())
def test_binaries_partition_the_legal_space(space: SearchSpace) -> None:
    members = [config for group in space.binaries.values() for config in group]
    assert sorted(map(str, members)) == sorted(map(str, space.legal))
    hosts = {knob.name for knob in space.knobs if knob.host}
    for binary, group in space.binaries.items():
        assert hosts.isdisjoint(binary)
        assert {space.binary_of(config) for config in group} == {binary}


@given(spaces())
def test_neighbours_are_legal_one_step_away_and_mutual(space: SearchSpace) -> None:
    for config in space.legal[:10]:
        near = space.neighbours(config)
        expected = {other for other in space.legal if space.steps_between(config, other) == 1}
        assert set(near) == expected
        assert len(near) == len(expected)
        assert all(config in space.neighbours(other) for other in near)


@given(spaces(), st.dictionaries(st.sampled_from(NAMES), st.integers(1, 9)))
def test_closest_is_no_farther_than_any(space: SearchSpace, wanted: dict[str, int]) -> None:
    if not space.legal:
        with pytest.raises(UsageError, match="nothing is legal"):
            space.closest(wanted)
        return
    found = space.closest(wanted)
    least = min(space.steps_between(config, wanted) for config in space.legal)
    assert found in space
    assert space.steps_between(found, wanted) == least
    assert found == next(c for c in space.legal if space.steps_between(c, wanted) == least)


@given(spaces())
def test_closest_to_a_legal_configuration_is_itself(space: SearchSpace) -> None:
    for config in space.legal[:10]:
        assert space.closest(config) == config


def test_steps_count_positions_of_ladders_and_one_per_name() -> None:
    space = tiles()
    start = space.config(tile=16, mode="x", fast=False, splits=1)
    assert space.steps_between(start, start) == 0
    assert space.steps_between(start, start.replace(tile=64, mode="z", splits=4)) == 2 + 1 + 2
    assert space.steps_between(start, {"tile": 32}) == 1, "absent knobs do not count"
    assert space.steps_between(start, {"tile": 48}) == 1, "off the ladder is another name"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"tile": 48, "mode": "x", "fast": False, "splits": 1}, "tile=48 is not one of"),
        ({"tile": 64, "mode": "x", "fast": True, "splits": 1}, "big tiles are slow"),
        ({"tile": 64, "mode": "x", "fast": False}, "splits"),
        ({"tile": 64, "mode": "x", "fast": False, "splits": 1, "odd": 1}, "odd"),
        # Equal to a listed value in Python, yet another text in a template.
        ({"tile": 16.0, "mode": "x", "fast": False, "splits": 1}, "tile=16.0 is not one of"),
        ({"tile": 16, "mode": "x", "fast": 0, "splits": 1}, "fast=0 is not one of"),
        ({"tile": 16, "mode": "x", "fast": False, "splits": True}, "splits=True is not one of"),
    ],
)
def test_why_illegal_names_the_culprit(values: Mapping[str, KnobValue], words: str) -> None:
    reason = tiles().why_illegal(values)
    assert reason is not None
    assert words in reason


def test_building_a_configuration_checks_it() -> None:
    space = tiles()
    assert space.config(tile=16, mode="y", fast=True, splits=2) in space
    with pytest.raises(UnknownChoiceError, match=r"unknown knob 'tyle'\. Did you mean tile"):
        space.config(tyle=16)
    with pytest.raises(UsageError, match="illegal configuration: big tiles are slow"):
        space.config(tile=64, mode="y", fast=True, splits=2)


def test_a_rule_without_knobs_decides_for_all() -> None:
    space = SearchSpace(tiles().knobs, (Constraint("never", (), lambda: False),))
    assert space.legal == ()
    assert space.rejected["never"] == space.cartesian_size


def test_configurations_are_values() -> None:
    one, other = Config({"b": 2, "a": "x"}), Config({"a": "x", "b": 2})
    assert one == other
    assert hash(one) == hash(other)
    assert one.key == other.key == '{"a":"x","b":2}'
    assert one.digest == other.digest
    assert one.replace(b=3).digest != one.digest
    assert dict(one) == {"a": "x", "b": 2}
    assert one != {"a": "x", "b": 2}
    assert str(one) == "a=x b=2"


@pytest.mark.parametrize("values", [(), (1, 1)])
def test_a_knob_needs_distinct_values(values: tuple[int, ...]) -> None:
    with pytest.raises(AssertionError):
        Knob("k", values, "meaning")


def test_a_rule_must_name_known_knobs() -> None:
    with pytest.raises(AssertionError, match="unknown knobs"):
        SearchSpace(tiles().knobs, (Constraint("typo", ("tyle",), lambda t: True),))


def test_grid_lists_all_combinations() -> None:
    assert grid(a=(1, 2), b=("x",)) == ({"a": 1, "b": "x"}, {"a": 2, "b": "x"})
    assert grid() == ({},)
