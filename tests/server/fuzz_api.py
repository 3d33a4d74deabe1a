"""Schemathesis over the server's own /openapi.json; `make fuzz-server` runs it at length.

python tests/server/fuzz_api.py --examples 200
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from live_server import LiveServer, save_served_model, served

# Not positive_data_acceptance: no schema tells how long a prompt may be, or what goes together.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,negative_data_rejection"
)


def fuzz(
    server: LiveServer, examples: int, *, phases: str, seed: int = 0
) -> subprocess.CompletedProcess[str]:
    """Send positive and negative examples to every operation; the exit code is 0 if all held."""
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json",
        "--phases", phases, "--mode", "all", "--max-examples", str(examples),
        "--checks", CHECKS, "--seed", str(seed), "--no-color", "--generation-database", "none",
        "--request-timeout", "60",
        "--suppress-health-check", "too_slow",  # that is how busy the machine is
    ]  # fmt: skip
    # It is made once, and a busy machine may take longer for that than schemathesis waits.
    server.get("/openapi.json")
    with tempfile.TemporaryDirectory() as folder:  # it keeps what it finds where it runs
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def main() -> int:
    """Fuzz a server of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, served(save_served_model(Path(folder))) as server:
        phases = "examples,coverage,fuzzing"
        found = fuzz(server, options.examples, phases=phases, seed=options.seed)
        print(found.stdout[-12_000:], found.stderr[-2000:])
        healthy = server.get("/health").status_code == 200
        print(f"health after it: {healthy}, blocks held: {server.used_blocks()}")
        return 0 if found.returncode == 0 and healthy and not server.used_blocks() else 1


if __name__ == "__main__":
    sys.exit(main())
