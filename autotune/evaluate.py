"""One candidate's failure becomes a status here: the only place with a broad `except`.

Runs inside a worker process, where a hang, a crash or a poisoned device context dies alone.
"""

from __future__ import annotations

import statistics
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from autotune.arch import lookup
from autotune.canary import canaries, ceilings
from autotune.clocks import SeldomRead
from autotune.compiler.cross import cross_compile
from autotune.compiler.facts import report
from autotune.correctness import Checker, check, complaint
from autotune.device_clocks import clocks_of
from autotune.errors import CandidateError, RenderError
from autotune.kernels import load_kernel
from autotune.kernels.spec import Inputs, KernelSpec
from autotune.library import PREFIX as LIBRARY
from autotune.library import load_routine
from autotune.peers import load_peer
from autotune.policy import Policy
from autotune.problem import Problem
from autotune.race import Race, race
from autotune.records import Status, to_json
from autotune.render import import_file
from autotune.simulated import OPERATIONS as SIMULATED
from autotune.simulated import PREFIX
from autotune.stopwatch import GpuStopwatch, num_input_sets
from autotune.testbed import Launch, MakeLaunch, Testbed

Answer = dict[str, Any]

_PEER_SLACK = 4.0
"""Peers round weights or probabilities where our kernels do not."""
_SWEEP_READS = 25
"""Rounds of a sweep to one look at the clocks: as many as a candidate has, about."""
_LIBRARY_SLACK = 2.0
"""Routines that an engine may run round once more than our kernels: what a product's type holds."""


def handle(request: Mapping[str, Any]) -> Answer:
    """Do what `request["op"]` says; a failed candidate is answered with a status and a reason."""
    simulated = request.get("device", "").startswith(PREFIX)
    operation = (SIMULATED if simulated else _OPERATIONS)[request["op"]]
    started = time.perf_counter()
    try:
        answer = operation(request)
    except (CandidateError, RenderError) as error:
        answer = {"status": _FAILED[request["op"]], "reason": str(error)}
    except Exception as error:
        answer = {"status": _FAILED[request["op"]], "reason": _reason(error)}
    # A failed launch can leave a device context that fails everything after it.
    failed = answer["status"] != Status.OK or answer.pop("failed", False)
    poisoned = request.get("device", "cpu") != "cpu" and failed
    return answer | {"seconds": time.perf_counter() - started, "poisoned": poisoned}


def _reason(error: Exception) -> str:
    """Generated code may raise anything; the last frame says where, the text what."""
    if isinstance(error, CandidateError | RenderError):
        return str(error)[:500]
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}: {error!r}"[:500]


def hello(request: Mapping[str, Any]) -> Answer:
    """Get the device going, so that what follows is timed without that."""
    import torch

    torch.zeros(1, device=request["device"])
    return {"status": Status.OK}


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
    reason = complaint(errors, spec.tolerance(problem))
    answer: Answer = {"relative": errors.relative, "elementwise": errors.elementwise}
    if reason is None:
        return answer | {"status": Status.OK}
    return answer | {"status": Status.WRONG_RESULT, "reason": reason}


def race_candidates(request: Mapping[str, Any]) -> Answer:
    """Time the rendered files `paths`, and `peers`, on one problem in turns: a `Race`.

    Each is first checked on the inputs that it is timed on; who fails is left out, with the reason.
    """
    bench = _Bench(request)
    makers = [(partial(bench.kernel, path), 1.0) for path in request["paths"]]
    for name in request.get("peers", ()):
        is_library = name.startswith(LIBRARY)
        entrant = partial(bench.routine, name.removeprefix(LIBRARY)) if is_library else None
        makers.append(
            (entrant or partial(bench.peer, name), _LIBRARY_SLACK if is_library else _PEER_SLACK)
        )
    ready: list[Callable[[], float]] = []
    faults: list[str | None] = []
    for make, slack in makers:
        try:
            ready.append(bench.bed.stopwatch(make(), slack))
            faults.append(None)
        except Exception as error:  # of one entrant; the others still race
            faults.append(_reason(error))
    failed = any(fault is not None for fault in faults)
    if not ready:
        return {"status": Status.OK, **Race.failed(0, "").with_faults(faults).to_json()}
    with clocks_of(request["nvml_index"]) as clocks:
        found = race(ready, clocks, bench.policy).with_faults(faults)
    return {"status": Status.OK, "failed": failed, **found.to_json(), **bench.facts()}


def sweep_candidates(request: Mapping[str, Any]) -> Answer:
    """Check and time many rendered files one after the other, as an exhaustive recording does.

    Checked on poisoned inputs of `check_problem`, then on the inputs that they are timed on.
    Answers with `rows` of status, reason and `samples_us`.
    """
    bench = _Bench(request)
    hard = bench.spec.problem_type.from_axes(request["check_problem"])
    checker = Checker(bench.spec, hard, request["seed"], request["device"])
    rows: list[Answer] = []
    failed = False
    with clocks_of(request["nvml_index"]) as all_clocks:
        clocks = SeldomRead(all_clocks, _SWEEP_READS)
        for path in request["paths"]:
            try:
                wrong = checker.wrong(import_file(Path(path)))
                if wrong is not None:
                    raise CandidateError(wrong)
                found = race([bench.bed.stopwatch(bench.kernel(path))], clocks, bench.policy)
                rows.append(
                    {"status": Status.OK, "reason": None, "samples_us": found.samples_us[0]}
                )
            except CandidateError as error:
                rows.append(_row(Status.WRONG_RESULT, error))
            except Exception as error:  # of one candidate
                rows.append(_row(Status.LAUNCH_ERROR, error))
                if not _is_alive(request["device"]):
                    failed = True
                    break  # the context is lost: what is left is asked for again
    return {"status": Status.OK, "failed": failed, "rows": rows, **bench.facts()}


def _is_alive(device: str) -> bool:
    """Whether the device's context still works after a failed launch (it was merely refused)."""
    import torch

    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return False
    return True


def _row(status: Status, error: Exception) -> Answer:
    return {"status": status, "reason": _reason(error), "samples_us": []}


class _Bench:
    """What a request to time something asks for."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        import torch

        device = request["device"]
        self.spec: KernelSpec[Any] = load_kernel(request["kernel"])
        self.problem: Problem = self.spec.problem_type.from_axes(request["problem"])
        self.policy = Policy.from_json(request["policy"])
        self._watch = GpuStopwatch(device, self.policy)
        l2_bytes = torch.cuda.get_device_properties(device).L2_cache_size
        self._sets = num_input_sets(self.spec.min_bytes(self.problem), l2_bytes)
        self.bed = Testbed(
            self.spec, self.problem, device, self._watch, self._sets, request["seed"]
        )

    def kernel(self, path: str) -> MakeLaunch:
        """A rendered file, imported."""
        module = import_file(Path(path))

        def make(inputs: Inputs) -> Launch:
            return partial(self.spec.run, module, self.problem, inputs)

        return make

    def routine(self, name: str) -> MakeLaunch:
        """One of the library's, called as a kernel's host function is."""
        module = ModuleType(name)
        module.launch = load_routine(name, self.problem)  # type: ignore[attr-defined]

        def make(inputs: Inputs) -> Launch:
            return partial(self.spec.run, module, self.problem, inputs)

        return make

    def peer(self, name: str) -> MakeLaunch:
        """Somebody else's implementation."""
        return partial(load_peer(name), self.problem)

    def facts(self) -> Answer:
        """What a race does not say of itself."""
        return {"empty_us": self._watch.empty_us, "input_sets": self._sets}


def race_canaries(request: Mapping[str, Any]) -> Answer:
    """Time what no template can change: `samples` in microseconds by name."""
    policy = Policy()
    watch = GpuStopwatch(request["device"], policy)
    launches = canaries(request["device"])
    ready = [watch.prepare([launch]) for launch in launches.values()]
    with clocks_of(request.get("nvml_index", 0)) as clocks:
        found = race(ready, clocks, policy)
    return {"status": Status.OK, "samples": dict(zip(launches, found.samples_us, strict=True))}


def measure_ceilings(request: Mapping[str, Any]) -> Answer:
    """Bandwidth of a large copy (read plus written) and rate of a large matrix product."""
    policy = Policy()
    watch = GpuStopwatch(request["device"], policy)
    work = ceilings(request["device"])
    ready = [watch.prepare([ceiling.launch]) for ceiling in work.values()]
    with clocks_of(request.get("nvml_index", 0)) as clocks:
        found = race(ready, clocks, policy)
    answer: Answer = {"status": Status.OK, "samples_us": {}}
    for (name, ceiling), samples in zip(work.items(), found.samples_us, strict=True):
        answer[name] = ceiling.amount / statistics.median(samples)
        answer["samples_us"][name] = samples
    return answer


_OPERATIONS: dict[str, Callable[[Mapping[str, Any]], Answer]] = {
    "hello": hello,
    "compile": compile_candidate,
    "check": check_candidate,
    "race": race_candidates,
    "sweep": sweep_candidates,
    "canaries": race_canaries,
    "ceilings": measure_ceilings,
}
_FAILED = {
    "hello": Status.LAUNCH_ERROR,
    "compile": Status.COMPILE_ERROR,
    "check": Status.LAUNCH_ERROR,
    "race": Status.LAUNCH_ERROR,
    "sweep": Status.LAUNCH_ERROR,
    "canaries": Status.LAUNCH_ERROR,
    "ceilings": Status.LAUNCH_ERROR,
}
