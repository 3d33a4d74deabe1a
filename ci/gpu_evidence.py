"""Gathers all evidence that a GPU can give: verification, ceilings, spaces, winners, peers, A/B.

    ci/gpu_evidence.sh                      every stage, at most 10 minutes each
    ci/gpu_evidence.sh verify spaces        these stages
    ci/gpu_evidence.sh engine               all stages of the engine
    ci/gpu_evidence.sh --simulate h200      a rehearsal without a GPU

The engine's stages want some 20 minutes of an H200. Where a command may take only ten, these two
have the most valuable ones, each ending in time by itself; the third is for what is left:

    ci/gpu_evidence.sh engine-latency engine-throughput --budget 420 --total 560
    ci/gpu_evidence.sh engine-check engine-tuned engine-memory --budget 240 --total 570
    ci/gpu_evidence.sh engine-throughput-small --total 300

The kernels' stages want 20 minutes; `docs/evidence.md` has the commands, and what they bring home.

Each stage writes `<out>/<stage>.json` (figures, environment, command) and every sample: as
`<out>/<stage>.raw.gz`, or in `<out>/<stage>.tar.gz` beside its files. `<out>` is --out, else $OUT,
else `evidence`. The stages of the engine write as they go: one that is killed leaves what it had,
marked `unfinished`. Nothing needs Optuna; beside torch, triton and transformers there must be
jinja2, jsonschema, numpy, rich and scipy. A stage that fails does not keep the next from running;
the exit code is then 1. Simulated figures say so.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from pathlib import Path

from evidence.packages import how_to_bring, missing

_LEAST_S = 20.0
"""A stage that would get less is left out."""


def main() -> int:
    """Run the stages asked for: 0 all went well, 1 one failed, 2 wrong usage, 3 without a GPU."""
    if absent := missing():
        print(how_to_bring(absent), file=sys.stderr)
        return 2
    from evidence.stages import GROUPS, STAGES
    from evidence.workplace import Workplace

    from autotune.deadline import Deadline
    from autotune.errors import AutotuneError

    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="stages: " + "; ".join(f"{k}: {v.__doc__}" for k, v in STAGES.items()),
    )
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="default: all, in this order")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or "evidence"))
    parser.add_argument(
        "--budget", type=float, default=480.0, metavar="S", help="seconds per stage (default 480)"
    )
    parser.add_argument(
        "--total", type=float, metavar="S", help="seconds for all stages together (default: any)"
    )
    parser.add_argument("--simulate", metavar="GPU", help="rehearse on a simulated GPU: h200, ...")
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help="tuned kernels of engine-tuned (default: own)"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="compiler processes")
    options = parser.parse_args()
    chosen = [each for name in options.stages for each in GROUPS.get(name, (name,))]
    unknown = [name for name in chosen if name not in STAGES]
    if unknown:
        parser.error(f"unknown stage {unknown[0]!r}; stages: {', '.join((*STAGES, *GROUPS))}")
    failed, left_out = [], []
    everything = Deadline(options.total)
    most_s = options.budget
    for name in chosen or STAGES:
        started = time.monotonic()
        if everything.left_s is not None:
            options.budget = min(most_s, everything.left_s)
        if options.budget < _LEAST_S:
            left_out.append(name)
            continue
        print(f"== {name}", flush=True)
        try:
            with Workplace(options, name) as place:
                document = STAGES[name](place)
                document["environment"] = place.environment()
        except AutotuneError as error:
            if error.exit_code == 3:
                print(f"gpu_evidence: {error}", file=sys.stderr)
                return 3
            document = {"failed": f"{type(error).__name__}: {error}"}
        except Exception as error:  # one stage must not take the others along
            traceback.print_exc()
            document = {"failed": repr(error)}
        document["command"] = _command(sys.argv[1:], options.out)
        document["seconds"] = round(time.monotonic() - started, 1)
        options.out.mkdir(parents=True, exist_ok=True)
        path = options.out / f"{name}.json"
        path.write_text(json.dumps(document, indent=1) + "\n")
        if document.get("failed"):
            failed.append(name)
            print(f"FAILED {name}: {document['failed']}")
        print(f"{path}, {document['seconds']} s", flush=True)
    if left_out:
        print(f"left out, for there was no time: {', '.join(left_out)}")
    if failed:
        print(f"failed: {', '.join(failed)}")
    return int(bool(failed))


def _command(words: list[str], out: Path) -> str:
    """What was typed, but for where it wrote: that is this machine's affair."""
    kept = [word for word in words if word not in ("--out", str(out), f"--out={out}")]
    return " ".join(("ci/gpu_evidence.sh", *kept))


if __name__ == "__main__":
    raise SystemExit(main())
