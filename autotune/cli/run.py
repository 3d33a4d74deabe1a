"""`autotune run`."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autotune.arch import GPUS, GpuArch, lookup
from autotune.build import Builder
from autotune.cell import Cell
from autotune.cli.exit_codes import INTERRUPTED
from autotune.cli.output import print_json
from autotune.cli.types import block_sizes, positive_float, positive_int
from autotune.deadline import Deadline
from autotune.device import LocalDevice, find_local, local_devices
from autotune.effort import DEFAULT_SAMPLER, EFFORTS, SAMPLERS
from autotune.errors import NoDeviceError, UnknownChoiceError, UsageError
from autotune.files import require_writable
from autotune.gpu import Gpu, simulated, simulated_device
from autotune.kernels import KERNELS, load_kernel
from autotune.kernels.dtypes import FLOAT_DTYPES
from autotune.model_shape import PRESETS, load
from autotune.paths import cache_dir, results_target, studies_dir, templates_dir
from autotune.peers import load_peer, peers_of
from autotune.pool import WorkerPool
from autotune.progress import Reporter, choose_reporter
from autotune.race_log import RaceLog
from autotune.record import record, write_spaces
from autotune.render import TemplateFolder
from autotune.results import ResultsStore
from autotune.simulated import SimulatedDevice
from autotune.standing import Standing, compare_with_peers

if TYPE_CHECKING:
    from autotune.tune import Tuned

EXAMPLES = """examples:
  autotune run --gpu a100                           the default model's shapes
  autotune run --gpu h100 --model qwen3-8b --kernel paged_attention_decode --block-size 16,64
  autotune run --gpu mi300x --model ./my-model/config.json --trials 64 --seed 1
  autotune run --kernel fused_mlp --peers --peer mine.py:gate_up   race the winners against others
  autotune run --effort exhaustive --record spaces --budget 600    keep every time, for replay

Without that GPU in this machine every candidate is cross-compiled for it and ranked by what the
compiler says and a cost model; such times are labelled predicted."""

DEFAULT_MODEL = "llama-3.1-8b"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("--gpu", help=f"GPU to tune for (default: this machine's): {', '.join(GPUS)}")
    add(
        "--model",
        default=DEFAULT_MODEL,
        help=f"preset, model folder or config.json (default {DEFAULT_MODEL}): {', '.join(PRESETS)}",
    )
    add(
        "--tensor-parallel",
        type=positive_int,
        default=1,
        metavar="N",
        help="GPUs that share each layer (default 1)",
    )
    add(
        "--kernel",
        action="append",
        metavar="NAME",
        help=f"default all; repeatable: {', '.join(KERNELS)}",
    )
    add(
        "--block-size",
        type=block_sizes,
        default=(16, 32, 64, 128),
        metavar="N,...",
        help="KV block sizes in tokens (default 16,32,64,128)",
    )
    add("--dtype", choices=FLOAT_DTYPES, help="activations (default: the model's)")
    add(
        "--effort",
        choices=tuple(EFFORTS),
        help="predict measures nothing; default quick with that GPU in this machine, else predict",
    )
    add("--trials", type=positive_int, metavar="N", help="binaries tried per cell")
    add(
        "--budget",
        type=positive_float,
        metavar="S",
        help="stop searching after so many seconds, shared by all cells",
    )
    add(
        "--sampler",
        default=DEFAULT_SAMPLER,
        metavar="NAME",
        help=f"default {DEFAULT_SAMPLER}; one of {', '.join(SAMPLERS)}",
    )
    add("--seed", type=int, default=0, help="same seed, same results (default 0)")
    add(
        "--jobs",
        type=positive_int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="compiler processes (default: one per CPU)",
    )
    add("--results", metavar="DIR", help="where to write (default: the results folder)")
    add("--storage", metavar="URL", help="Optuna database instead of a journal file")
    add(
        "--peers",
        action="store_true",
        help="race the selections against torch's own implementations (SDPA, cuBLAS, ...)",
    )
    add(
        "--peer",
        action="append",
        default=[],
        metavar="FILE.py:FUNCTION",
        help="and against this one: FUNCTION(problem, inputs) returns what is timed, a function "
        "without arguments that returns the output",
    )
    add(
        "--record",
        type=Path,
        metavar="DIR",
        help="time every configuration (or a sample, as far as --budget goes a second time) and "
        "write recorded spaces for `autotune replay`",
    )
    add(
        "--raw",
        type=Path,
        metavar="FILE",
        help="raw samples of all races (default: races.jsonl beside the studies)",
    )
    # A rehearsal: GPU[?trait=number&...], see `simulated`. Results go to --results only.
    add("--simulate", metavar="GPU", help=argparse.SUPPRESS)
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on where a run was interrupted")
    again.add_argument("--fresh", action="store_true", help="start over (the default)")
    add("--json", action="store_true", help="print JSON, no progress")


def handle(options: argparse.Namespace) -> int:
    """Search, write, and print what won and why."""
    arch, here = _target(options)
    effort = options.effort or ("predict" if here is None else "quick")
    measures = effort != "predict" or options.peers or options.peer or options.record
    if measures and here is None:
        what = f"--effort {effort}" if effort != "predict" else "--peers, --peer and --record"
        raise NoDeviceError(
            f"{what}: this measures, and there is no {arch.title} in this machine; "
            "use --effort predict (with --trials N to search longer)"
        )
    for peer in options.peer:
        load_peer(peer)
    if options.sampler not in SAMPLERS:
        raise UnknownChoiceError("sampler", options.sampler, SAMPLERS)
    shape = load(options.model)
    if options.tensor_parallel > 1:
        shape = shape.tensor_parallel(options.tensor_parallel)
    cells = [
        Cell(spec, arch, problem)
        for spec in map(load_kernel, options.kernel or KERNELS)
        for problem in spec.problems(shape, options.dtype or shape.dtype, options.block_size)
    ]
    if not cells:
        raise UsageError(f"{options.model} needs none of the chosen kernels")
    store = ResultsStore(results_target(options.results))
    require_writable(store.path(arch.name, cells[0].spec.name).parent)
    for kernel in dict.fromkeys(cell.spec.name for cell in cells):
        store.read(arch.name, kernel)  # what is corrupt is said before the search, not after
    # Optuna and scikit-learn take seconds to load: not before the arguments are known to be good.
    from autotune.cli.summary import print_standings, print_summary, run_document
    from autotune.tune import SearchOptions, tune

    search = SearchOptions(
        effort=effort,
        trials=options.trials,
        sampler=options.sampler,
        seed=options.seed,
        resume=options.resume,
        storage_url=options.storage,
    )
    reporter = choose_reporter(options.json, sys.stderr)
    started = time.monotonic()
    templates = TemplateFolder(templates_dir())
    log = RaceLog(options.raw or studies_dir() / "races.jsonl")
    with contextlib.ExitStack() as stack:
        builder = Builder(
            arch, templates, cache_dir(), stack.enter_context(WorkerPool(options.jobs))
        )
        device: Gpu | None = None
        if options.simulate:
            device = stack.enter_context(simulated(options.simulate, templates, cache_dir(), log))
        elif here is not None and measures:
            device = stack.enter_context(Gpu(here, templates, cache_dir(), log))
        trials = sum(search.trials_for(cell) for cell in cells)
        reporter.start(
            f"{shape.name} on {arch.title} ({arch.target}): {len(cells)} cells, "
            f"{trials} candidates, effort {effort}",
            trials,
        )
        try:
            done = tune(
                cells,
                builder,
                store,
                studies_dir(),
                search,
                Deadline(options.budget),
                reporter,
                device if effort != "predict" else None,
            )
            standings, recorded = _afterwards(options, done, builder, device, reporter)
        except KeyboardInterrupt:
            reporter.stop()
            print(
                "autotune: interrupted; what was compiled is kept. Go on with the same command and "
                "--resume",
                file=sys.stderr,
            )
            return INTERRUPTED
        finally:
            reporter.stop()
    seconds = time.monotonic() - started
    if options.json:
        document = run_document(arch, done, builder.compiled, seconds)
        document["peers"] = [standing.to_json() for standing in standings]
        document["recorded"] = list(map(str, recorded))
        print_json(document)
    else:
        print_summary(arch, done, builder.compiled, seconds)
        print_standings(standings)
        for path in recorded:
            print(f"recorded {path}")
    return 0


def _afterwards(
    options: argparse.Namespace,
    done: Sequence[Tuned],
    builder: Builder,
    device: Gpu | None,
    reporter: Reporter,
) -> tuple[list[Standing], list[Path]]:
    """What may follow a search on a device: races against peers, recordings of whole spaces."""
    standings: list[Standing] = []
    recorded: list[Path] = []
    if device is None:
        return standings, recorded
    deadline = Deadline(options.budget)
    for number, tuned in enumerate(done):
        cell = tuned.cell
        peers = [*(peers_of(cell.spec.name) if options.peers else ()), *options.peer]
        standings += compare_with_peers(cell, tuned.result.selections, device, peers)
        if options.record is not None:
            share = deadline.share(len(done) - number)
            spaces = record(cell, builder, device, share, options.seed)
            recorded += write_spaces(spaces, options.record)
            reporter.line(f"[{number + 1}/{len(done)}] {cell.spec.name}: recorded {len(spaces)}")
    return standings, recorded


def _target(options: argparse.Namespace) -> tuple[GpuArch, LocalDevice | None]:
    """GPU to tune for, and the one of this machine that is it."""
    if options.simulate:
        if options.results is None:
            raise UsageError("--simulate needs --results DIR: nothing of it is a measurement")
        arch = SimulatedDevice.parse(options.simulate).arch
        return arch, simulated_device(arch)
    arch = _arch(options.gpu)
    return arch, find_local(arch)


def _arch(name: str | None) -> GpuArch:
    if name is not None:
        return lookup(name)
    for device in local_devices():
        if device.arch is not None:
            return device.arch
    raise NoDeviceError(
        f"no known GPU in this machine; say which one to tune for: --gpu {'|'.join(GPUS)}"
    )
