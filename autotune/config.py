"""Configurations: a value for every knob of a kernel."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping

KnobValue = int | str | bool


class Config(Mapping[str, KnobValue]):
    """An immutable, hashable assignment of a value to every knob of a kernel."""

    __slots__ = ("_items", "_values")

    def __init__(self, values: Mapping[str, KnobValue]) -> None:
        self._values = dict(sorted(values.items()))
        self._items = tuple(self._values.items())

    def __getitem__(self, name: str) -> KnobValue:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(self._items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self._items == other._items

    def __repr__(self) -> str:
        return f"Config({self})"

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self._items)

    def number(self, name: str) -> int:
        """Value of an integer knob."""
        value = self._values[name]
        assert isinstance(value, int), f"knob {name} is not a number"
        return value

    def replace(self, **changes: KnobValue) -> Config:
        """Return a copy with some knobs set to other values."""
        return Config({**self._values, **changes})

    def changes_from(self, other: Config) -> list[str]:
        """Knobs whose values differ, each as "name theirs→ours"; one that is not named is plain."""
        return [
            f"{name} {other.get(name, 'plain')}→{self.get(name, 'plain')}"
            for name in dict.fromkeys((*self, *other))
            if self.get(name) != other.get(name)
        ]

    @property
    def key(self) -> str:
        """Canonical JSON text: equal configs, equal keys."""
        return json.dumps(self._values, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """First 12 hex digits of the sha256 of `key`."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:12]
