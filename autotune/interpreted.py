"""Triton's interpreter, told to bind its language once per launch.

A launch binds `triton.language` to NumPy, and undoes that at its end. Triton 3.7 binds it anew
whenever a kernel calls a device function, by looking through all members of the module: about half
of the time that a small attention kernel takes. What is bound stays so until the launch ends, so
once is enough for each set of names that functions are written in.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol


class Scope(Protocol):
    """What Triton has bound and can undo."""

    def restore(self) -> None:
        """Undo it."""
        ...


Bind = Callable[[Any], Scope]
"""Binds the language as one function sees it."""


class BindOncePerLaunch:
    """Stands in for Triton's `_patch_lang`; a launch calls `restore` of what it gets."""

    def __init__(self, bind: Bind) -> None:
        self._bind = bind
        self._of_launch: Scope | None = None
        self._bound: set[int] = set()  # identities of modules' names

    def __call__(self, fn: Any) -> Scope:
        """Bind for the kernel of a new launch, or for a device function where that is news."""
        if self._of_launch is None:
            self._of_launch = self._bind(fn)
        elif id(fn.__globals__) not in self._bound:
            self._bind(fn)  # left so by Triton, too
        self._bound.add(id(fn.__globals__))
        return self

    def restore(self) -> None:
        """The launch has ended, well or not."""
        assert self._of_launch is not None, "no launch has begun"
        scope, self._of_launch = self._of_launch, None
        self._bound.clear()
        scope.restore()


def hasten() -> None:
    """Bind once per launch in this process, if its Triton interprets and is one that undoes."""
    interpreter: Any = sys.modules.get("triton.runtime.interpreter")
    if interpreter is None or not hasattr(interpreter, "_LangPatchScope"):
        return
    if not isinstance(interpreter._patch_lang, BindOncePerLaunch):
        interpreter._patch_lang = BindOncePerLaunch(interpreter._patch_lang)
