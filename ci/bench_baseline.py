"""Keep a recording of the benchmarks as the baseline that `make bench-compare` holds others to.

    python ci/bench_baseline.py out/bench.json ci/benchmarks/baseline.json

What is kept is the machine's name and up to 30 samples of each benchmark: a few kB to commit. On
any other machine the comparison says "incomparable" and passes; keep a baseline of that machine
aside and name it: `make bench-compare BASELINE=FILE`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from autotune.errors import CorruptResultError
from autotune.files import write_atomically
from autotune.gate.recorded import Recording


def main() -> None:
    """Read the command line, shorten, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("recording", type=Path, help="of pytest --benchmark-save-data")
    parser.add_argument("baseline", type=Path, help="file to write")
    options = parser.parse_args()
    try:
        recording = Recording.read(options.recording)
    except CorruptResultError as error:
        sys.exit(f"{error}; `make bench` writes one")
    document = recording.to_document()
    lines = [f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in document["samples_us"].items()]
    head = [
        f"  {json.dumps(k)}: {json.dumps(v)}," for k, v in document.items() if k != "samples_us"
    ]
    text = "\n".join(["{", *head, '  "samples_us": {', ",\n".join(lines), "  }", "}", ""])
    write_atomically(options.baseline, text)
    print(f"{options.baseline}: {len(lines)} benchmarks of {recording.machine}")


if __name__ == "__main__":
    main()
