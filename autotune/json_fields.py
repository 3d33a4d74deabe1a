"""A JSON object read field by field: every complaint names the file, the field and a way out."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from pathlib import Path

from autotune.errors import UsageError

_LARGEST = 2**31 - 1
_MOST_BYTES = 16 << 20


class JsonFields:
    """Typed access to the fields of one JSON object. `null` counts as absent.

    Several names for a field are aliases; if two of them are present, they have to agree.
    """

    def __init__(self, values: Mapping[str, object], source: str) -> None:
        self.values = values
        self.source = source

    @classmethod
    def read(cls, path: Path) -> JsonFields:
        """Read the object in the file at `path`.

        Raises:
            UsageError: the file cannot be read, is far too large, or does not hold a JSON object.
        """
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise UsageError(
                    f"{path}: larger than {_MOST_BYTES >> 20} MiB, so not a config file"
                )
            content = path.read_bytes()
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
        try:
            values = json.loads(content)
        except (ValueError, RecursionError) as error:
            # ValueError: bad syntax, bad encoding, or an integer of thousands of digits.
            raise UsageError(f"{path}: not valid JSON: {error}") from error
        if not isinstance(values, dict):
            raise UsageError(f"{path}: holds {_shown(values)}; a JSON object {{...}} is expected")
        return cls(values, str(path))

    def error(self, complaint: str) -> UsageError:
        """Return an error about this file, for the caller to raise."""
        return UsageError(f"{self.source}: {complaint}")

    def nested(self, name: str) -> JsonFields | None:
        """Fields of the object called `name`, None if absent. UsageError when it is no object."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.error(f"{name}={_shown(value)} must be an object")
        return JsonFields(value, f"{self.source}, {name}")

    def count(self, *names: str) -> int | None:
        """Return a positive integer below 2^31, None if absent."""
        name, value = self._one_of(names)
        if value is None:
            return None
        # JSON true is a bool, which Python would take for the integer 1.
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _LARGEST:
            raise self.error(f"{name}={_shown(value)} must be a positive integer below 2^31")
        return value

    def required_count(self, *names: str) -> int:
        """Return a positive integer below 2^31 that has to be there."""
        value = self.count(*names)
        if value is None:
            also = f" (or {', '.join(names[1:])})" if names[1:] else ""
            raise self.error(f"field {names[0]}{also} is missing; add it as a positive integer")
        return value

    def number(self, *names: str) -> float | None:
        """Return a positive number below 2^31, None if absent."""
        name, value = self._one_of(names)
        if value is None:
            return None
        # The comparison is false for NaN, too.
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 < value <= _LARGEST:  # type: ignore[operator]
            raise self.error(f"{name}={_shown(value)} must be a positive number below 2^31")
        return float(value)  # type: ignore[arg-type]

    def flag(self, name: str, default: bool) -> bool:
        """Return true or false, `default` if absent."""
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(f"{name}={_shown(value)} must be true or false")
        return value

    def choice(self, names: tuple[str, ...], meanings: Mapping[str, str]) -> str | None:
        """Return what `meanings` makes of a text field, None if absent."""
        name, value = self._one_of(names)
        if value is None:
            return None
        if not isinstance(value, str) or value not in meanings:
            known = ", ".join(sorted(meanings))
            raise self.error(f"{name}={_shown(value)} is not supported; supported: {known}")
        return meanings[value]

    def _one_of(self, names: tuple[str, ...]) -> tuple[str, object]:
        """First present field among aliases and its value; the value is None if none is there."""
        present = [(name, self.values[name]) for name in names if self.values.get(name) is not None]
        for name, value in present[1:]:
            first, expected = present[0]
            if value != expected:
                raise self.error(
                    f"{first}={_shown(expected)} contradicts {name}={_shown(value)}; keep one"
                )
        return present[0] if present else (names[0], None)


def _shown(value: object) -> str:
    """Short text of any JSON value, however long or deep."""
    return reprlib.repr(value)
