"""`autotune worker`."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from autotune.arch import GPUS, GpuArch
from autotune.build import Builder
from autotune.cell import Cell
from autotune.cli.cells import (
    add_cell_arguments,
    checked_store,
    chosen_arch,
    chosen_cells,
    chosen_effort,
)
from autotune.cli.exit_codes import INTERRUPTED
from autotune.cli.output import print_json
from autotune.cli.ray_launcher import RayCluster, launch_all
from autotune.cli.types import positive_float
from autotune.deadline import Deadline
from autotune.device import find_local
from autotune.effort import EFFORTS
from autotune.errors import NoDeviceError, UnknownChoiceError, UsageError
from autotune.gpu import Gpu
from autotune.measure import Device
from autotune.paths import cache_dir, studies_dir, templates_dir
from autotune.pool import WorkerPool
from autotune.progress import choose_reporter
from autotune.race_log import RaceLog
from autotune.render import TemplateFolder

if TYPE_CHECKING:
    from autotune.search.shared import SharedStorage
    from autotune.shared_search import Task

EXAMPLES = """examples:
  autotune worker --storage postgresql://tuner@db/tuning --gpu a100 --model llama-3.1-8b
  autotune worker --storage journal:/mnt/shared/tuning --gpu h100 --kernel fused_mlp
  autotune worker --storage journal:/mnt/shared/tuning         join whatever is searched there
  autotune worker --storage postgresql://tuner@db/tuning --gpu a100,h100 --ray auto

Start it as often and on as many machines as you like, with the same options: workers share the
trials of every cell, take over from those that die, and each writes all results in the end. Those
are the results of `autotune run --no-warm-start` with the same options."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add(
        "--storage",
        required=True,
        metavar="URL",
        help="postgresql://USER@HOST/DATABASE, journal:FOLDER, or sqlite:///FILE (one machine)",
    )
    add(
        "--study",
        action="append",
        metavar="NAME",
        help="join this study of the storage; repeatable. Without --study and --gpu: all of them",
    )
    add_cell_arguments(parser)
    add(
        "--ray",
        metavar="ADDRESS",
        help="start a worker on every such GPU of a Ray cluster: auto, HOST:PORT or local",
    )
    add(
        "--budget",
        type=positive_float,
        metavar="S",
        help="leave after so many seconds; others, or a later worker, go on",
    )
    add(
        "--patience",
        type=positive_float,
        default=60.0,
        metavar="S",
        help="take over from a worker that shows no sign of life for so long (default 60)",
    )
    add("--results", metavar="DIR", help="where to write (default: the results folder)")
    add("--json", action="store_true", help="print JSON, no progress")


def handle(options: argparse.Namespace) -> int:
    """Take part in a search until it is over, then write and print what won."""
    if options.gpu is not None and options.study:
        raise UsageError("--study joins searches as they are; it does not go with --gpu")
    named = [] if options.gpu is None else _chosen(options)
    # Optuna and scikit-learn take seconds to load: not before the arguments are known to be good.
    from autotune.cli.summary import print_summary, run_document
    from autotune.fleet import Pace, is_finished, work
    from autotune.search.shared import SharedStorage
    from autotune.shared_search import Task
    from autotune.study import SearchOptions

    shared = SharedStorage.open(options.storage)
    if options.ray is not None:
        return launch_all(options, RayCluster(options.ray))
    if named:
        search = SearchOptions(trials=options.trials, seed=options.seed, resume=True)
        tasks = [
            Task(
                cell,
                replace(search, effort=effort, sampler=options.sampler or EFFORTS[effort].sampler),
            )
            for cell, effort in named
        ]
    else:
        tasks = _joined(shared, options.study)
    store = checked_store(options.results, (task.cell for task in tasks))
    archs = {task.cell.arch.name: task.cell.arch for task in tasks}
    unfinished = [task for task in tasks if not is_finished(shared, task)]
    reporter = choose_reporter(options.json, sys.stderr)
    started = time.monotonic()
    templates = TemplateFolder(templates_dir())
    with ExitStack() as stack:
        pool = stack.enter_context(WorkerPool(options.jobs))
        builders = {
            name: Builder(arch, templates, cache_dir(), pool) for name, arch in archs.items()
        }
        devices = {
            name: device
            for name, arch in archs.items()
            if (device := _device(arch, unfinished, stack, templates)) is not None
        }
        trials = sum(task.options.trials_for(task.cell) for task in tasks)
        titles = ", ".join(arch.title for arch in archs.values())
        reporter.start(f"worker on {len(tasks)} cells for {titles}, {trials} candidates", trials)
        # Slurm and Kubernetes say SIGTERM some seconds before they kill: time to let go.
        before = signal.signal(signal.SIGTERM, _interrupt)
        stack.callback(signal.signal, signal.SIGTERM, before)
        try:
            done = work(
                tasks,
                builders,
                devices,
                shared,
                store,
                Pace(options.jobs, options.patience),
                Deadline(options.budget),
                reporter,
            )
        except KeyboardInterrupt:
            reporter.stop()
            print("autotune: interrupted; what this worker held is free again", file=sys.stderr)
            return INTERRUPTED
        finally:
            reporter.stop()
    seconds = time.monotonic() - started
    groups = [
        (arch, [tuned for tuned in done if tuned.cell.arch.name == name])
        for name, arch in archs.items()
    ]
    if options.json:
        print_json(
            [run_document(a, group, builders[a.name].compiled, seconds) for a, group in groups]
        )
        return 0
    for arch, group in groups:
        if group:
            print_summary(arch, group, builders[arch.name].compiled, seconds)
    if len(done) < len(tasks):
        print(f"out of time with {len(tasks) - len(done)} of {len(tasks)} cells not searched yet")
    return 0


def _chosen(options: argparse.Namespace) -> list[tuple[Cell, str]]:
    """Cells of all GPUs that are named, and the effort to search them with."""
    chosen = []
    for name in options.gpu.split(","):
        arch = chosen_arch(name)
        _, cells = chosen_cells(options, arch)
        here = None if options.ray is not None else find_local(arch)
        effort = options.effort if options.ray is not None else chosen_effort(options, arch, here)
        chosen += [(cell, effort) for cell in cells]
    return chosen


def _joined(shared: SharedStorage, names: Sequence[str] | None) -> list[Task]:
    from autotune.fleet import requested

    found = requested(shared)
    if not found:
        raise UsageError(
            "no worker has begun a search in this storage yet; say what to tune for: "
            f"--gpu {'|'.join(GPUS)}"
        )
    for name in names or ():
        if name not in found:
            raise UnknownChoiceError("study", name, found)
    return [found[name] for name in names or found]


def _device(
    arch: GpuArch, tasks: Sequence[Task], stack: ExitStack, templates: TemplateFolder
) -> Device | None:
    """This machine's GPU, None if nothing is measured on that one."""
    efforts = {task.options.effort for task in tasks if task.cell.arch == arch} - {"predict"}
    if not efforts:
        return None
    here = find_local(arch)
    if here is None:
        raise NoDeviceError(
            f"the search for {arch.title} measures (effort {', '.join(sorted(efforts))}), and "
            "there is none in this machine; name studies to join with --study"
        )
    log = RaceLog(studies_dir() / "races.jsonl")
    return stack.enter_context(Gpu(here, templates, cache_dir(), log))


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
