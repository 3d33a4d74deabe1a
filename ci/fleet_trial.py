"""Let workers share a search, kill them at random, and check that nothing is lost or done twice.

    python ci/fleet_trial.py --storage journal:FOLDER [--workers 8] [--cells 8] [--trials 50]

A made-up kernel with a made-up compiler, so that it is all about leases. Every worker is a process
of its own; some are killed with SIGKILL at random moments and replaced. Afterwards the studies and
results must be those of one undisturbed process, byte for byte, and a log that all workers wrote
must show that no trial was leased or told again after its evaluation had been recorded, and that
what the killed had leased was taken over. Half of the kills are aimed at workers that hold a trial.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "unit"))

from fleet_log import holders, logged, read_log, takeovers
from toy_kernel import FakeBuilder, ToyKernel, ToyProblem, sound, write_templates

from autotune.arch import lookup
from autotune.cell import Cell
from autotune.deadline import Deadline
from autotune.fleet import Pace, work
from autotune.kernels import KERNELS
from autotune.progress import Silent
from autotune.records import Evaluation
from autotune.render import TemplateFolder
from autotune.results import ResultsStore
from autotune.search.leases import EVALUATION, LEASE
from autotune.search.shared import SharedStorage
from autotune.shared_search import Task
from autotune.study import SearchOptions, study_name
from autotune.tune import tune

KERNELS["toy"] = "toy_kernel:ToyKernel"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is searched, and by how many."""

    storage_url: str
    workers: int
    cells: int
    trials: int
    kills: int
    sampler: str
    patience_s: float
    seed: int

    @property
    def tasks(self) -> list[Task]:
        """Cells that differ in one exact axis."""
        options = SearchOptions(trials=self.trials, sampler=self.sampler, resume=True)
        arch = lookup("a100")
        problems = [ToyProblem(width=64 * (number + 1)) for number in range(self.cells)]
        return [Task(Cell(ToyKernel(), arch, problem), options) for problem in problems]


class SlowBuilder(FakeBuilder):
    """Takes some milliseconds, so that a kill finds trials in flight."""

    def evaluate(
        self,
        spec: Any,
        problem: Any,
        configs: Sequence[Any],
        on_done: Callable[[], None] = lambda: None,
    ) -> list[Evaluation]:
        """Judge after a while."""
        time.sleep(random.uniform(0.01, 0.05))
        return super().evaluate(spec, problem, configs, on_done)


def toy_verdict(config: Any) -> Evaluation:
    """Two stages compile to what one gives at the largest tile: duplicates depend on the order."""
    if config.number("tile") == 128:
        return sound(config, binary_sha=f"{config['mode']}{config.number('num_warps')}" + "0" * 14)
    return sound(config)


def start_worker(plan: Plan, templates: TemplateFolder, folder: Path, number: int) -> int:
    """Fork a worker; what has been imported need not be imported again."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        random.seed(number)
        logged(folder / "log")
        done = work(
            plan.tasks,
            {"a100": SlowBuilder(lookup("a100"), templates, toy_verdict)},
            {},
            SharedStorage.open(plan.storage_url),
            ResultsStore(folder / f"results-{number}"),
            Pace(trials_at_once=2, patience_s=plan.patience_s, poll_s=0.05),
            Deadline(None),
            Silent(),
        )
        code = 0 if len(done) == plan.cells else 1
    finally:
        sys.stderr.flush()
        if code and (error := sys.exc_info()[1]):
            sys.excepthook(type(error), error, error.__traceback__)
        os._exit(code)


def run_fleet(plan: Plan, templates: TemplateFolder, folder: Path) -> tuple[list[int], list[int]]:
    """Run workers until all are done; numbers of those that lived, and processes that were killed.

    The kills are spread over the search: the next one is due when its share of trials is evaluated.
    """
    chance = random.Random(plan.seed)
    numbers = {start_worker(plan, templates, folder, n): n for n in range(plan.workers)}
    lived: list[int] = []
    killed: list[int] = []
    failed = 0
    while numbers:
        time.sleep(chance.uniform(0.02, 0.15))
        share = len(killed) * plan.cells * plan.trials / (plan.kills + 1)
        evaluated = sum(event == EVALUATION for event, _, _ in read_log(folder / "log"))
        if len(killed) < plan.kills and evaluated >= share:
            busy = set(holders(folder / "log").values()) & numbers.keys()
            victim = chance.choice(sorted(busy if busy and len(killed) % 2 else numbers))
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)
        for child in tuple(numbers):
            ended, status = os.waitpid(child, os.WNOHANG)
            if not ended:
                continue
            number = numbers.pop(child)
            if os.WIFSIGNALED(status):
                fresh = plan.workers + len(killed) + len(lived)
                numbers[start_worker(plan, templates, folder, fresh)] = fresh
            elif os.waitstatus_to_exitcode(status) == 0:
                lived.append(number)
            else:
                failed += 1
    assert not failed, f"{failed} workers ended with an error"
    return lived, killed


def check(plan: Plan, templates: TemplateFolder, folder: Path, lived: Sequence[int]) -> list[str]:
    """Compare with one undisturbed process; everything that is wrong."""
    faults = []
    single = tune(
        [task.cell for task in plan.tasks],
        FakeBuilder(lookup("a100"), templates, toy_verdict),
        ResultsStore(folder / "single"),
        folder / "studies",
        SearchOptions(trials=plan.trials, sampler=plan.sampler),
        Deadline(None),
        Silent(),
    )
    assert len(single) == plan.cells
    expected = (folder / "single" / "a100" / "toy.json").read_bytes()
    for number in lived:
        if (folder / f"results-{number}" / "a100" / "toy.json").read_bytes() != expected:
            faults.append(f"worker {number} wrote other results than a single process")
    shared = SharedStorage.open(plan.storage_url)
    alone = SharedStorage.open(f"journal:{folder / 'studies'}")
    for task in plan.tasks:
        name = study_name(task.cell)
        ours, theirs = told(shared, name), told(alone, name)
        if len(ours) != plan.trials or len({params for _, params, _, _ in ours}) != plan.trials:
            faults.append(f"{name}: {len(ours)} trials, not {plan.trials} different ones")
        if ours != theirs:
            faults.append(f"{name}: not the trials of a single process")
    events = read_log(folder / "log")
    for kind in (EVALUATION, "told"):
        counts = Counter(trial for event, trial, _ in events if event == kind)
        faults += [f"{trial}: {kind} {n} times" for trial, n in counts.items() if n > 1]
    recorded: set[str] = set()
    for event, trial, _ in events:
        if event == EVALUATION:
            recorded.add(trial)
        elif event == LEASE and trial in recorded:
            faults.append(f"{trial}: leased again after its evaluation was recorded")
    return faults


def told(shared: SharedStorage, name: str) -> list[tuple[int, str, str, float | None]]:
    """Number, parameters, state and value of every trial of a study."""
    storage = shared.storage(name)
    trials = storage.get_all_trials(storage.get_study_id_from_name(name), deepcopy=False)
    return [(t.number, str(sorted(t.params.items())), t.state.name, t.value) for t in trials]


def add_plan(parser: argparse.ArgumentParser) -> None:
    """Declare the options of a plan, less the storage."""
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--trials", type=int, default=50, help="per cell, at most 54")
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--patience", type=float, default=2.0, help="seconds")
    parser.add_argument("--seed", type=int, default=0, help="of the kills")


def hold_trial(options: argparse.Namespace, storage_url: str) -> int:
    """Run and check; prints the verdict and returns the exit code."""
    plan = Plan(
        storage_url,
        options.workers,
        options.cells,
        options.trials,
        options.kills,
        options.sampler,
        options.patience,
        options.seed,
    )
    scratch: AbstractContextManager[str] = tempfile.TemporaryDirectory(prefix="fleet-")
    with scratch as name:
        folder = Path(name)
        templates = write_templates(folder / "templates")
        started = time.monotonic()
        lived, killed = run_fleet(plan, templates, folder)
        seconds = time.monotonic() - started
        leases = sum(event == LEASE for event, _, _ in read_log(folder / "log"))
        taken = takeovers(folder / "log", killed)
        faults = check(plan, templates, folder, lived)
        if len(killed) >= 10 and not taken:  # fewer may all have missed
            faults.append("no trial of a killed worker was taken over: nothing was shown")
    print(
        f"{plan.workers} workers, {plan.cells * plan.trials} trials in {plan.cells} cells, "
        f"{len(killed)} killed, {leases} leases, {taken} of them taken over from the killed, "
        f"{seconds:.1f} s; {len(lived)} workers' results compared"
    )
    print("\n".join(faults) or "none lost, none twice, the same as one process")
    return 1 if faults else 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--storage", required=True, metavar="URL")
    add_plan(parser)
    options = parser.parse_args()
    return hold_trial(options, options.storage)


if __name__ == "__main__":
    sys.exit(main())
