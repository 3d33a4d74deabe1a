"""Runs a probe: `python -m evidence.engine.probe NAME REQUEST`; it tells JSON lines on stdout."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

PROBES = ("latency", "memory", "throughput", "tuned")

Tell = Callable[..., None]
"""Takes what was found, as keywords; `raw` goes to the raw file alone."""


def main() -> None:
    """Run the probe named on the command line."""
    name, request = sys.argv[1], json.loads(sys.argv[2])
    assert name in PROBES, name
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer

    def tell(**found: Any) -> None:
        print(json.dumps(found), file=answers, flush=True)

    importlib.import_module(f"evidence.engine.{name}_probe").main(request, tell)


if __name__ == "__main__":
    main()
