"""One candidate's failure becomes a status here: the only place with a broad `except`.

Runs inside a worker process, where a hang, a crash or a poisoned device context dies alone.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from autotune.arch import lookup
from autotune.canary import canaries
from autotune.compiler.cross import cross_compile
from autotune.compiler.facts import report
from autotune.correctness import check
from autotune.errors import CandidateError, RenderError
from autotune.kernels import load_kernel
from autotune.race import race
from autotune.records import Status, to_json
from autotune.render import import_file

Answer = dict[str, Any]


def handle(request: Mapping[str, Any]) -> Answer:
    """Do what `request["op"]` says; a failed candidate is answered with a status and a reason."""
    operation = _OPERATIONS[request["op"]]
    started = time.perf_counter()
    try:
        answer = operation(request)
    except (CandidateError, RenderError) as error:
        answer = {"status": _FAILED[request["op"]], "reason": str(error)}
    except Exception as error:
        # Generated code may raise anything; the last frame says where, the text what.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{frame.filename}:{frame.lineno}"
        answer = {"status": _FAILED[request["op"]], "reason": f"{place}: {error!r}"[:500]}
    # A failed launch can leave a device context that fails everything after it.
    poisoned = request.get("device", "cpu") != "cpu" and answer["status"] != Status.OK
    return answer | {"seconds": time.perf_counter() - started, "poisoned": poisoned}


def compile_candidate(request: Mapping[str, Any]) -> Answer:
    """Compile the rendered file `path` for `gpu`: the reports of its entry points."""
    arch = lookup(request["gpu"])
    binaries = cross_compile(import_file(Path(request["path"])), arch)
    return {
        "status": Status.OK,
        "reports": [to_json(report(binary, arch)) for binary in binaries],
    }


def check_candidate(request: Mapping[str, Any]) -> Answer:
    """Run the rendered file `path` on inputs from `seed`: its errors against the reference."""
    spec = load_kernel(request["kernel"])
    problem = spec.problem_type.from_axes(request["problem"])
    errors = check(
        spec, import_file(Path(request["path"])), problem, request["seed"], request["device"]
    )
    tolerance = spec.tolerance(problem)
    answer: Answer = {"relative": errors.relative, "elementwise": errors.elementwise}
    if errors.within(tolerance):
        return answer | {"status": Status.OK}
    allowed = f"allowed {tolerance.relative:.1e} and {tolerance.elementwise:.1e}"
    return answer | {"status": Status.WRONG_RESULT, "reason": f"{errors}; {allowed}"}


def race_candidates(request: Mapping[str, Any]) -> Answer:
    """Time the rendered files `paths` on one problem, in turns: `samples` in microseconds."""
    spec = load_kernel(request["kernel"])
    problem = spec.problem_type.from_axes(request["problem"])
    inputs = spec.bench_inputs(problem, request["seed"], request["device"])
    modules = [import_file(Path(path)) for path in request["paths"]]
    launches = [partial(spec.run, module, problem, inputs) for module in modules]
    return {"status": Status.OK, "samples": race(launches, request["device"])}


def race_canaries(request: Mapping[str, Any]) -> Answer:
    """Time what no template can change: `samples` in microseconds by name."""
    launches = canaries(request["device"])
    samples = race(list(launches.values()), request["device"])
    return {"status": Status.OK, "samples": dict(zip(launches, samples, strict=True))}


_OPERATIONS: dict[str, Callable[[Mapping[str, Any]], Answer]] = {
    "compile": compile_candidate,
    "check": check_candidate,
    "race": race_candidates,
    "canaries": race_canaries,
}
_FAILED = {
    "compile": Status.COMPILE_ERROR,
    "check": Status.LAUNCH_ERROR,
    "race": Status.LAUNCH_ERROR,
    "canaries": Status.LAUNCH_ERROR,
}
