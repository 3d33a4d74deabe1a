"""`autotune run`."""

from __future__ import annotations

import argparse
import os
import sys
import time

from autotune.arch import GPUS, GpuArch, lookup
from autotune.build import Builder
from autotune.cell import Cell
from autotune.cli.exit_codes import INTERRUPTED
from autotune.cli.output import print_json
from autotune.cli.types import block_sizes, positive_float, positive_int
from autotune.deadline import Deadline
from autotune.device import find_local, local_devices
from autotune.effort import DEFAULT_SAMPLER, EFFORTS, SAMPLERS
from autotune.errors import NoDeviceError, UnknownChoiceError, UsageError
from autotune.kernels import KERNELS, load_kernel
from autotune.kernels.dtypes import FLOAT_DTYPES
from autotune.measure import Gpu
from autotune.model_shape import PRESETS, load
from autotune.paths import cache_dir, results_target, studies_dir, templates_dir
from autotune.pool import WorkerPool
from autotune.progress import choose_reporter
from autotune.render import TemplateFolder
from autotune.results import ResultsStore

EXAMPLES = """examples:
  autotune run --gpu a100                           the default model's shapes
  autotune run --gpu h100 --model qwen3-8b --kernel paged_attention_decode --block-size 16,64
  autotune run --gpu mi300x --model ./my-model/config.json --trials 64 --seed 1

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
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on where a run was interrupted")
    again.add_argument("--fresh", action="store_true", help="start over (the default)")
    add("--json", action="store_true", help="print JSON, no progress")


def handle(options: argparse.Namespace) -> int:
    """Search, write, and print what won and why."""
    arch = _arch(options.gpu)
    here = find_local(arch)
    effort = options.effort or ("predict" if here is None else "quick")
    if effort != "predict" and here is None:
        raise NoDeviceError(
            f"--effort {effort} measures, and there is no {arch.title} in this machine; "
            "use --effort predict (with --trials N to search longer)"
        )
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
    # Optuna and scikit-learn take seconds to load: not before the arguments are known to be good.
    from autotune.cli.summary import print_summary, run_document
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
    store = ResultsStore(results_target(options.results))
    started = time.monotonic()
    templates = TemplateFolder(templates_dir())
    with WorkerPool(options.jobs) as pool, WorkerPool(1) as device_pool:
        builder = Builder(arch, templates, cache_dir(), pool)
        device = (
            None
            if here is None or effort == "predict"
            else Gpu(here, device_pool, templates, cache_dir())
        )
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
                device,
            )
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
        print_json(run_document(arch, done, builder.compiled, seconds))
    else:
        print_summary(arch, done, builder.compiled, seconds)
    return 0


def _arch(name: str | None) -> GpuArch:
    if name is not None:
        return lookup(name)
    for device in local_devices():
        if device.arch is not None:
            return device.arch
    raise NoDeviceError(
        f"no known GPU in this machine; say which one to tune for: --gpu {'|'.join(GPUS)}"
    )
