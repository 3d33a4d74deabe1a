"""pytest under `python -O`, with large libraries taken from their ordinary caches.

    python -O run_optimised.py [PYTEST WORDS ...]

Those libraries keep their assertions: compiling them without takes longer than all tests do, again
in every fresh environment. All else is compiled as -O has it. No cache is written.
"""

from __future__ import annotations

import importlib._bootstrap_external as external
import sys

import pytest

LARGE = ("torch", "transformers", "numpy", "triton", "sympy", "networkx", "hypothesis", "_pytest",
         "huggingface_hub", "PIL", "pygments", "rich", "pip", "setuptools")  # fmt: skip
"""Packages; none of them stands between a request and the engine."""

_FOLDERS = tuple(f"/site-packages/{name}/" for name in LARGE)
_as_asked = external.cache_from_source


def cache_from_source(
    path: str, debug_override: bool | None = None, *, optimization: str | int | None = None
) -> str:
    """Where bytecode of a source file lies; that of large libraries is the ordinary."""
    if optimization is None and any(folder in path for folder in _FOLDERS):
        optimization = ""
    return _as_asked(path, debug_override, optimization=optimization)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    external.cache_from_source = cache_from_source
    raise SystemExit(pytest.main())
