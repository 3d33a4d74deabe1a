"""Problems: what a kernel is asked to do, split into exact and nearest axes.

A *cell* is a kernel, a GPU and the exact axes; a *point* is a cell at given sizes (nearest axes).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar, Self

from autotune.errors import UnknownChoiceError, UsageError

AxisValue = int | float | str | bool


def exact(
    default: AxisValue,
    meaning: str,
    choices: tuple[AxisValue, ...] = (),
    optional: bool = False,
) -> Any:
    """Declare an axis on which a tuned result must agree fully (dtype, head_dim, block_size).

    An `optional` axis is a variant: labels and files name it only where it is not at its default,
    so that adding one changes neither those that exist nor their keys.
    """
    return field(
        default=default,
        metadata={"kind": "exact", "meaning": meaning, "choices": choices, "optional": optional},
    )


def nearest(default: int, meaning: str) -> Any:
    """Declare a size axis on which the nearest tuned point may stand in (num_seqs, m)."""
    return field(
        default=default,
        metadata={"kind": "nearest", "meaning": meaning, "choices": (), "optional": False},
    )


@dataclasses.dataclass(frozen=True)
class Problem:
    """Base of the per-kernel problem types; each field is declared with `exact` or `nearest`."""

    kernel: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for axis in dataclasses.fields(self):
            choices = axis.metadata["choices"]
            value = getattr(self, axis.name)
            if choices and value not in choices:
                raise UnknownChoiceError(axis.name, str(value), map(str, choices))
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(f"{axis.name}={value} must be finite")
            if isinstance(value, int | float) and value < 0:
                raise UsageError(f"{axis.name}={value} must not be negative")
            # Of exact axes, zero means "none", and only where that is the default or a choice.
            counts = axis.metadata["kind"] == "exact" and type(value) is int and not choices
            if counts and axis.default and value == 0:
                raise UsageError(f"{axis.name}=0 must be at least 1")

    @classmethod
    def axis_names(cls, kind: str | None = None) -> tuple[str, ...]:
        """Names of all axes, or of one kind ("exact", "nearest")."""
        return tuple(
            axis.name
            for axis in dataclasses.fields(cls)
            if kind is None or axis.metadata["kind"] == kind
        )

    def exact_axes(self) -> dict[str, AxisValue]:
        """Exact axes and their values, in declaration order."""
        return {name: getattr(self, name) for name in self.axis_names("exact")}

    def named_axes(self) -> dict[str, AxisValue]:
        """Exact axes as labels and files have them: optional ones only where they say something."""
        usual = {
            axis.name: axis.default
            for axis in dataclasses.fields(self)
            if axis.metadata["optional"]
        }
        return {
            name: value
            for name, value in self.exact_axes().items()
            if name not in usual or value != usual[name]
        }

    def nearest_axes(self) -> dict[str, int]:
        """Size axes and their values, in declaration order."""
        return {name: getattr(self, name) for name in self.axis_names("nearest")}

    def cell(self) -> Self:
        """This problem with its sizes at their defaults: equal for all points of a cell."""
        defaults = {
            axis.name: axis.default
            for axis in dataclasses.fields(self)
            if axis.metadata["kind"] == "nearest"
        }
        return dataclasses.replace(self, **defaults)

    def at(self, **sizes: int) -> Self:
        """This cell at other sizes."""
        return dataclasses.replace(self, **sizes)

    def label(self, kind: str | None = None) -> str:
        """Text form `k=v,k=v` of all axes, or of one kind; readable by `parse`."""
        named = {**self.named_axes(), **self.nearest_axes()}
        return ",".join(f"{name}={named[name]}" for name in self.axis_names(kind) if name in named)

    @classmethod
    def from_axes(cls, axes: Mapping[str, AxisValue]) -> Self:
        """Build from names and values, defaults filling the rest.

        Raises:
            UnknownChoiceError: a name is not an axis of this kernel, or a value is not a choice.
            UsageError: a value has the wrong type.
        """
        values: dict[str, AxisValue] = {}
        for name, value in axes.items():
            if name not in cls.axis_names():
                raise UnknownChoiceError(f"axis of {cls.kernel}", name, cls.axis_names())
            default = getattr(cls, name)
            if isinstance(default, float) and type(value) is int:
                value = float(value)  # so that equal problems have equal labels
            if type(value) is not type(default):
                raise UsageError(
                    f"{name}={value!r} has the wrong type; {type(default).__name__} expected"
                )
            values[name] = value
        return cls(**values)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `k=v,k=v`; an empty text gives all defaults. Errors as in `from_axes`."""
        return cls.from_axes(cls.read_axes(text))

    @classmethod
    def read_axes(cls, text: str) -> dict[str, AxisValue]:
        """The axes that `k=v,k=v` names.

        Raises:
            UnknownChoiceError: a name is not an axis of this kernel.
            UsageError: a value has the wrong type, or the text another form.
        """
        values: dict[str, AxisValue] = {}
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            name, separator, raw = part.partition("=")
            if not separator:
                raise UsageError(f"{part!r} is not of the form axis=value")
            if name not in cls.axis_names():
                raise UnknownChoiceError(f"axis of {cls.kernel}", name, cls.axis_names())
            if name in values:
                raise UsageError(f"{name} is given twice")
            values[name] = _read(name, raw, getattr(cls, name))
        return values


def _read(name: str, raw: str, default: AxisValue) -> AxisValue:
    if isinstance(default, bool):
        if raw.lower() not in ("true", "false", "1", "0"):
            raise UsageError(f"{name}={raw} must be true or false")
        return raw.lower() in ("true", "1")
    try:
        return type(default)(raw)
    except ValueError as error:
        raise UsageError(f"{name}={raw} must be of type {type(default).__name__}") from error
