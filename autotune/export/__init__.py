"""Selections in other programs' formats: one file and one row per format."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from autotune.errors import UnknownChoiceError

if TYPE_CHECKING:
    from autotune.export.document import Exporter

FORMATS = {
    "json": "autotune.export.plain:export",
    "t4": "autotune.export.t4:export",
    "vllm": "autotune.export.vllm:export",
}
"""Name → "module:function", imported when asked for."""


def exporter(name: str) -> Exporter:
    """Return what writes a format.

    Raises:
        UnknownChoiceError: no such format.
    """
    if name not in FORMATS:
        raise UnknownChoiceError("format", name, FORMATS)
    module, _, attribute = FORMATS[name].partition(":")
    found: Exporter = getattr(importlib.import_module(module), attribute)
    return found
