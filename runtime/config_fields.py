"""Typed reading of one JSON object: every mistake becomes a ConfigFieldError that names the field.

It knows types, not models; what a field means is `model_config.py`'s business.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.errors import ConfigFieldError, ModelFolderError


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        ModelFolderError: it is not there, cannot be read, or holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelFolderError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelFolderError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise ModelFolderError(f"{path}: holds {type(values).__name__}, not a JSON object")
    return values


class ConfigFields:
    """The fields of one object, read by type; JSON null counts as absent."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values = values
        self.where = where

    def error(self, field: str, problem: str) -> ConfigFieldError:
        """Return the error for a field, to be raised."""
        return ConfigFieldError(self.where, field, problem)

    def count(self, field: str, default: int | None = None) -> int:
        """A whole number of at least 1; without a default it must be there."""
        found = self.optional_count(field)
        if found is None:
            found = default
        if found is None:
            raise self.error(field, "is missing")
        return found

    def optional_count(self, field: str) -> int | None:
        """A whole number of at least 1, or None."""
        value = self.values.get(field)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.error(field, f"is {value!r}; it must be a whole number of at least 1")
        return value

    def number(self, field: str, default: float | None = None) -> float:
        """A finite number above 0; without a default it must be there."""
        found = self.optional_number(field)
        if found is None:
            found = default
        if found is None:
            raise self.error(field, "is missing")
        return found

    def optional_number(self, field: str) -> float | None:
        """A finite number above 0, or None."""
        value = self.values.get(field)
        if value is None:
            return None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or value <= 0:
            raise self.error(field, f"is {value!r}; it must be a number above 0")
        return float(value)

    def flag(self, field: str, *, default: bool = False) -> bool:
        """True or false."""
        value = self.values.get(field)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(field, f"is {value!r}; it must be true or false")
        return value

    def text(self, field: str, default: str | None = None) -> str:
        """A string; without a default it must be there."""
        value = self.values.get(field, default)
        if value is None:
            value = default
        if value is None:
            raise self.error(field, "is missing")
        if not isinstance(value, str):
            raise self.error(field, f"is {value!r}; it must be a string")
        return value

    def numbers(self, field: str, length: int) -> tuple[float, ...]:
        """A list of `length` finite numbers above 0."""
        value = self.values.get(field)
        if not isinstance(value, list) or len(value) != length:
            raise self.error(field, f"must be a list of {length} numbers")
        return tuple(ConfigFields({field: item}, self.where).number(field) for item in value)

    def token_ids(self, field: str) -> frozenset[int]:
        """One token id, a list of them, or none."""
        value = self.values.get(field)
        items = value if isinstance(value, list) else [] if value is None else [value]
        for item in items:
            if isinstance(item, bool) or not isinstance(item, int) or item < 0:
                raise self.error(field, f"is {value!r}; it must be a token id or a list of them")
        return frozenset(items)

    def nested(self, field: str) -> ConfigFields | None:
        """The fields of an object within this one, or None."""
        value = self.values.get(field)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.error(field, f"is {value!r}; it must be an object")
        return ConfigFields(value, f"{self.where}: {field}")
