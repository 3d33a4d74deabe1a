"""What must be installed before anything is imported, and how to bring it along."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

NEEDED = ("jinja2", "jsonschema", "numpy", "rich", "scipy", "torch", "triton")
"""Of the kernels' stages; Optuna, scikit-learn and the web stack are not among them."""


def missing(names: Sequence[str] = NEEDED) -> list[str]:
    """Names that cannot be imported here."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def how_to_bring(names: Sequence[str]) -> str:
    """What to type, for a machine with a network and for one without."""
    wanted = " ".join(names)
    return (
        f"gpu_evidence: not installed: {', '.join(names)}. With a network: pip install {wanted}. "
        f"Without: where there is one, pip download -d .carry {wanted} (for another Python, with "
        "--only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 "
        "--platform manylinux2014_x86_64); carry the folder over, then "
        f"pip install --no-index --find-links .carry {wanted}"
    )
