"""Triton's interpreter: whether kernels run on the CPU is decided when triton is imported."""

from __future__ import annotations

import os
import sys

from runtime.errors import DeviceError

_VARIABLE = "TRITON_INTERPRET"
_TRUE = ("1", "true", "yes", "on", "y")
"""What triton takes for yes, in any letter case."""


def is_chosen() -> bool:
    """Whether the environment asks for the interpreter."""
    return os.environ.get(_VARIABLE, "").lower() in _TRUE


def choose() -> None:
    """Ask for the interpreter, for this process; what a command does before it loads anything.

    Raises:
        DeviceError: triton has been imported as a compiler.
    """
    if not is_chosen():
        if "triton" in sys.modules:
            raise DeviceError(_TOO_LATE)
        os.environ[_VARIABLE] = "1"


def require() -> None:
    """Check that kernels made from now on will be interpreted; imports triton.

    Raises:
        DeviceError: the environment does not ask for it, or did so too late.
    """
    if not is_chosen():
        raise DeviceError(_TOO_LATE if "triton" in sys.modules else _NOT_ASKED)
    import triton.language
    from triton.runtime.interpreter import InterpretedFunction

    # Triton's own functions were made when it was imported: they tell how.
    if not isinstance(triton.language.cdiv, InterpretedFunction):
        raise DeviceError(_TOO_LATE)


_REMEDY = f"set {_VARIABLE}=1 in the environment before Python starts (--ops interpreter does)"
_NOT_ASKED = f"the interpreter is not asked for: {_REMEDY}"
_TOO_LATE = f"triton was imported to compile, and cannot interpret in this process: {_REMEDY}"
