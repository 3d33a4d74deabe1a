"""Parts of a JSON document that must have a certain type: refused with file and field if not."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from autotune.errors import CorruptResultError


def listed(document: Mapping[str, Any], field: str, source: str) -> list[Any]:
    """List in a field. CorruptResultError if it is absent or of another type."""
    value = document.get(field)
    if not isinstance(value, list):
        raise CorruptResultError(f"{source}: {field} is {reprlib.repr(value)}; a list is expected")
    return value


def mapping(document: Mapping[str, Any], field: str, source: str) -> dict[str, Any]:
    """Object in a field. CorruptResultError if it is absent or of another type."""
    value = document.get(field)
    if not isinstance(value, dict):
        raise CorruptResultError(
            f"{source}: {field} is {reprlib.repr(value)}; an object is expected"
        )
    return value


def text(document: Mapping[str, Any], field: str, source: str) -> str:
    """Text in a field. CorruptResultError if it is absent or of another type."""
    value = document.get(field)
    if not isinstance(value, str):
        raise CorruptResultError(f"{source}: {field} is {reprlib.repr(value)}; text is expected")
    return value
