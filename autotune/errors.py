"""The tree of errors a caller can meet; it owns the words and the exit codes, nothing else.

* AutotuneError              1
  x UsageError               2   the command or an argument is off
    - UnknownChoiceError         a name that is not in a table; lists the table
  x NoDeviceError            3   the GPU that was asked for is not in this machine
  x CorruptResultError       4   a results file cannot be trusted
  x RenderError              1   a template could not be rendered or imported
  x CandidateError           1   a generated kernel failed; `evaluate` turns it into a status
  x StorageError             1   a file or a study could not be written
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AutotuneError(Exception):
    """Base of every error that this package raises on purpose."""

    exit_code = 1


class UsageError(AutotuneError):
    """The caller's mistake: says what was given, and what would be accepted."""

    exit_code = 2


class UnknownChoiceError(UsageError):
    """A name that is in no table; the message offers near names and lists all."""

    def __init__(self, kind: str, value: str, choices: Iterable[str]) -> None:
        names = sorted(choices)
        near = difflib.get_close_matches(value, names, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        super().__init__(f"unknown {kind} {value!r}.{hint} Choices: {', '.join(names)}")
        self.kind = kind
        self.value = value
        self.choices = tuple(names)


class NoDeviceError(AutotuneError):
    """Something must run on a GPU that this machine does not have."""

    exit_code = 3


class CorruptResultError(AutotuneError):
    """A results file is truncated, foreign, of another schema, or does not validate."""

    exit_code = 4


class RenderError(AutotuneError):
    """A template does not render, or its module does not import."""


class CandidateError(AutotuneError):
    """One generated kernel failed to compile, launch or give the right answer."""


class StorageError(AutotuneError):
    """A results file, a study or the cache could not be written."""
