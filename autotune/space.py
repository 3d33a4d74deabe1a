"""The legal configurations that knobs and constraints leave; knows no kernel and no sampler."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from math import prod

from autotune.config import Config, KnobValue
from autotune.errors import UnknownChoiceError, UsageError
from autotune.knob import Constraint, Knob


class SearchSpace:
    """The cartesian product of knobs, cut down to its legal configurations by enumeration.

    A template's space has 10^2 to 10^5 points, so it is listed rather than sampled: an illegal
    configuration is never proposed, and "unseen" has an exact meaning. A constraint is tested as
    soon as its last knob is set, which prunes whole branches.

    `variants` are further knobs that an ordinary search leaves alone. A configuration that does not
    name one means its first, plain value, so templates gain variants without a change to
    configurations that exist; one that names some is as legal as any. `widened` lists them, too,
    and `repeatable` those that have a steady value.
    """

    def __init__(
        self,
        knobs: tuple[Knob, ...],
        constraints: tuple[Constraint, ...] = (),
        variants: tuple[Knob, ...] = (),
        plain: Mapping[str, KnobValue] | None = None,
    ) -> None:
        self.knobs = knobs
        self.constraints = constraints
        self.variants = variants
        self.plain = dict(plain or {}) | {knob.name: knob.values[0] for knob in variants}
        """Plain value of every knob that a configuration need not name."""
        self._all = (*knobs, *variants)
        names = [knob.name for knob in self._all]
        for constraint in constraints:
            missing = set(constraint.knobs) - set(names)
            assert not missing, f"constraint {constraint.reason!r} names unknown knobs {missing}"
        self._ready: list[list[Constraint]] = [[] for _ in names]
        for constraint in constraints:
            last = max((names.index(name) for name in constraint.knobs), default=0)
            self._ready[last].append(constraint)

    @cached_property
    def widened(self) -> SearchSpace:
        """The same space with the variants among its knobs; its configurations name all of them."""
        return SearchSpace(self._all, self.constraints, plain=self.plain)

    @cached_property
    def repeatable(self) -> SearchSpace:
        """What is left where a result must be the same to the bit in every run and every batch."""

        def rule(knob: Knob) -> Constraint:
            return Constraint(
                "the result may differ from run to run, or with the neighbours",
                (knob.name,),
                lambda value: value not in knob.unrepeatable,
            )

        rules = tuple(rule(knob) for knob in self._all if knob.unrepeatable)
        searched = tuple(knob for knob in self.variants if knob.steady is not None)
        others = tuple(knob for knob in self.variants if knob.steady is None)
        return SearchSpace(
            (*self.knobs, *searched), (*self.constraints, *rules), others, self.plain
        )

    def steadied(self, config: Config) -> Config:
        """Return `config` with what suits all sizes in one order of sums, where knobs have such."""
        steady = {knob.name: knob.steady for knob in self._all if knob.steady is not None}
        return config.replace(**steady) if steady else config

    def named(self, config: Config) -> Config:
        """Return `config` with plain values of the knobs of this space that it does not name."""
        missing = {
            k.name: self.plain[k.name]
            for k in self.knobs
            if k.name not in config and k.name in self.plain
        }
        return Config({**missing, **config}) if missing else config

    def stored(self, config: Config) -> Config:
        """Return `config` without variants at their plain values: one way to write each."""
        kept = {
            name: value
            for name, value in config.items()
            if name not in self.plain or self.plain[name] != value
        }
        return Config(kept) if len(kept) < len(config) else config

    @property
    def cartesian_size(self) -> int:
        """Number of combinations before any constraint."""
        return prod(len(knob.values) for knob in self.knobs)

    @cached_property
    def _listed(self) -> tuple[tuple[Config, ...], Counter[str]]:
        found: list[Config] = []
        rejected: Counter[str] = Counter()
        chosen: dict[str, KnobValue] = {knob.name: knob.values[0] for knob in self.variants}
        names = [knob.name for knob in self.knobs]
        below = [prod(len(k.values) for k in self.knobs[i + 1 :]) for i in range(len(self.knobs))]

        def descend(depth: int) -> None:
            if depth == len(names):
                broken = self._broken_variant(chosen)
                if broken is None:
                    found.append(Config({name: chosen[name] for name in names}))
                else:
                    rejected[broken.reason] += 1
                return
            knob = self.knobs[depth]
            for value in knob.values:
                chosen[knob.name] = value
                broken = self._first_broken(depth, chosen)
                if broken is None:
                    descend(depth + 1)
                else:
                    rejected[broken.reason] += below[depth]
            del chosen[knob.name]

        descend(0)
        return tuple(found), rejected

    def _first_broken(self, depth: int, chosen: Mapping[str, KnobValue]) -> Constraint | None:
        for constraint in self._ready[depth]:
            if not constraint.holds(*(chosen[name] for name in constraint.knobs)):
                return constraint
        return None

    def _broken_variant(self, chosen: Mapping[str, KnobValue]) -> Constraint | None:
        for depth in range(len(self.knobs), len(self._all)):
            broken = self._first_broken(depth, chosen)
            if broken is not None:
                return broken
        return None

    @property
    def legal(self) -> tuple[Config, ...]:
        """Every legal configuration, in knob order: the same list in every run."""
        return self._listed[0]

    @property
    def rejected(self) -> Counter[str]:
        """How many combinations each constraint removed, each counted where it first broke."""
        return self._listed[1]

    @cached_property
    def binaries(self) -> dict[Config, tuple[Config, ...]]:
        """Legal configurations grouped by what is compiled.

        Keys leave the host knobs out; values are the whole configurations sharing that binary.
        """
        device = [knob.name for knob in self.knobs if not knob.host]
        groups: dict[Config, list[Config]] = {}
        for config in self.legal:
            groups.setdefault(Config({name: config[name] for name in device}), []).append(config)
        return {binary: tuple(configs) for binary, configs in groups.items()}

    def binary_of(self, config: Config) -> Config:
        """Return `config` without its host knobs.

        Variants are named where they are knobs of this space or not plain.
        """
        named = self.named(config)
        own = {k.name for k in self.knobs}
        host = {k.name for k in self._all if k.host}
        kept = own | self.stored(named).keys()
        return Config({name: value for name, value in named.items() if name in kept - host})

    @cached_property
    def _members(self) -> frozenset[Config]:
        return frozenset(self.legal)

    def __contains__(self, config: object) -> bool:
        return config in self._members

    def why_illegal(self, config: Mapping[str, KnobValue]) -> str | None:
        """First reason for which `config` is not in this space, None if it is legal."""
        config = {**self.plain, **config}
        names = {knob.name for knob in self._all}
        if set(config) != names:
            odd = sorted(set(config) ^ names)
            return f"knobs do not match this kernel's: {', '.join(odd)}"
        for knob in self._all:
            # 32.0 and true equal 32 and 1 in Python, but not in a template.
            types = {type(value) for value in knob.values}
            if config[knob.name] not in knob.values or type(config[knob.name]) not in types:
                return f"{knob.name}={config[knob.name]} is not one of {list(knob.values)}"
        for depth in range(len(self._all)):
            broken = self._first_broken(depth, config)
            if broken is not None:
                return broken.reason
        return None

    def config(self, **values: KnobValue) -> Config:
        """Build a configuration from keyword values, checked against the space.

        Raises:
            UnknownChoiceError: a keyword is not a knob of this space.
            UsageError: the configuration is illegal; the message gives the reason.
        """
        known = [knob.name for knob in self._all]
        for name in values:
            if name not in known:
                raise UnknownChoiceError("knob", name, known)
        reason = self.why_illegal(values)
        if reason is not None:
            raise UsageError(f"illegal configuration: {reason}")
        return Config(values)

    def closest(self, wanted: Mapping[str, KnobValue]) -> Config:
        """Return the legal configuration with the fewest steps from `wanted` (ties: first listed).

        Knobs that `wanted` leaves out do not count. A legal `wanted` is returned without listing.

        Raises:
            UsageError: nothing is legal; the message gives the constraints that forbid most.
        """
        if set(wanted) == {knob.name for knob in self.knobs} and self.why_illegal(wanted) is None:
            return Config(wanted)
        if not self.legal:
            reasons = "; ".join(reason for reason, _ in self.rejected.most_common(3))
            raise UsageError(f"nothing is legal in this space: {reasons}")
        return min(self.legal, key=lambda config: self.steps_between(config, wanted))

    def steps_between(self, one: Mapping[str, KnobValue], other: Mapping[str, KnobValue]) -> float:
        """Distance in knob steps: position difference if ordered, 1 for another name."""
        total = 0.0
        for knob in self.knobs:
            if knob.name not in one or knob.name not in other:
                continue
            a, b = one[knob.name], other[knob.name]
            if a == b:
                continue
            if knob.ordered and a in knob.values and b in knob.values:
                total += abs(knob.values.index(a) - knob.values.index(b))
            else:
                total += 1.0
        return total

    def neighbours(self, config: Config) -> tuple[Config, ...]:
        """Legal configurations one step away in one knob (any other name if unordered)."""
        found = []
        for knob in self.knobs:
            at = knob.values.index(config[knob.name])
            for index, value in enumerate(knob.values):
                if index == at or (knob.ordered and abs(index - at) != 1):
                    continue
                candidate = config.replace(**{knob.name: value})
                if candidate in self:
                    found.append(candidate)
        return tuple(found)
