"""What `run` and `worker` are asked to search: the options, and the cells they name."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterable

from autotune.arch import GPUS, GpuArch, lookup
from autotune.cell import Cell
from autotune.cli.types import block_sizes, positive_int
from autotune.device import LocalDevice, local_devices
from autotune.effort import DEFAULT_SAMPLER, EFFORTS, PREDICTING_SAMPLER, SAMPLERS
from autotune.errors import NoDeviceError, UnknownChoiceError, UsageError
from autotune.files import require_writable
from autotune.kernels import COMPANIONS, KERNELS, load_kernel, searched_kernels
from autotune.kernels.dtypes import FLOAT_DTYPES
from autotune.kernels.paged_attention import KV_DTYPES, KV_SCALES
from autotune.model_shape import PRESETS, ModelShape, load
from autotune.objective import DEFAULT_OBJECTIVE, OBJECTIVES
from autotune.paths import results_target
from autotune.results import ResultsStore

DEFAULT_MODEL = "llama-3.1-8b"


def add_cell_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is searched, and how hard."""
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
        help=f"repeatable: {', '.join(KERNELS)} (default: all but {', '.join(COMPANIONS)})",
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
        "--kv-dtype",
        choices=KV_DTYPES,
        default="auto",
        help="KV cache of the attention kernels (default auto: as the activations)",
    )
    add(
        "--kv-scale",
        choices=KV_SCALES,
        default="head",
        help="what an int8 or fp8 cache has scales for (default head)",
    )
    add(
        "--effort",
        choices=tuple(EFFORTS),
        help="predict measures nothing; default quick with that GPU in this machine, else predict",
    )
    add("--trials", type=positive_int, metavar="N", help="binaries tried per cell")
    add(
        "--sampler",
        metavar="NAME",
        help=f"default {DEFAULT_SAMPLER}, with --effort predict {PREDICTING_SAMPLER}; "
        f"one of {', '.join(SAMPLERS)}",
    )
    add(
        "--variants",
        action="store_true",
        help="search structural variants, too: `autotune kernels` lists them",
    )
    add(
        "--deterministic",
        action="store_true",
        help="one order of summation for all sizes of a cell, and nothing that may differ from run "
        "to run (atomic sums): an output does not depend on the batch",
    )
    add(
        "--objective",
        choices=tuple(OBJECTIVES),
        default=DEFAULT_OBJECTIVE,
        help="what a search makes small over a cell's sizes: latency, the mean of the times, or "
        "worst, the worst ratio to what is least possible (default latency). Every size still gets "
        "its own fastest",
    )
    add("--seed", type=int, default=0, help="same seed, same results (default 0)")
    add(
        "--jobs",
        type=positive_int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="compiler processes (default: one per CPU)",
    )


def chosen_arch(name: str | None) -> GpuArch:
    """The GPU of that name, or this machine's.

    Raises:
        UsageError: the name is unknown.
        NoDeviceError: no GPU is named, and this machine has none that is known.
    """
    if name is not None:
        return lookup(name)
    for device in local_devices():
        if device.arch is not None:
            return device.arch
    raise NoDeviceError(
        f"no known GPU in this machine; say which one to tune for: --gpu {'|'.join(GPUS)}"
    )


def chosen_cells(options: argparse.Namespace, arch: GpuArch) -> tuple[ModelShape, list[Cell]]:
    """Shape and cells that the options name.

    Raises:
        UsageError: a name is unknown, or the model needs none of the chosen kernels.
    """
    if options.sampler is not None and options.sampler not in SAMPLERS:
        raise UnknownChoiceError("sampler", options.sampler, SAMPLERS)
    shape = load(options.model)
    shape = dataclasses.replace(shape, kv_dtype=options.kv_dtype, kv_scale=options.kv_scale)
    if options.tensor_parallel > 1:
        shape = shape.tensor_parallel(options.tensor_parallel)
    cells = [
        Cell(
            spec,
            arch,
            problem,
            variants=options.variants,
            repeatable=options.deterministic,
            objective=options.objective,
        )
        for spec in map(load_kernel, options.kernel or searched_kernels())
        for problem in spec.problems(shape, options.dtype or shape.dtype, options.block_size)
    ]
    if not cells:
        raise UsageError(f"{options.model} needs none of the chosen kernels")
    return shape, cells


def checked_store(folder: str | None, cells: Iterable[Cell]) -> ResultsStore:
    """The results folder; what is wrong with it is said before the search, not after.

    Raises:
        StorageError: nothing can be written there.
        CorruptResultError: a file that has to take a result cannot be trusted.
    """
    store = ResultsStore(results_target(folder))
    for gpu, kernel in dict.fromkeys((cell.arch.name, cell.spec.name) for cell in cells):
        require_writable(store.path(gpu, kernel).parent)
        store.read(gpu, kernel)
    return store


def chosen_effort(options: argparse.Namespace, arch: GpuArch, here: LocalDevice | None) -> str:
    """The effort asked for, or what suits this machine.

    Raises:
        NoDeviceError: the effort measures, and the GPU is not in this machine.
    """
    effort: str = options.effort or ("predict" if here is None else "quick")
    if effort != "predict" and here is None:
        raise no_device(f"--effort {effort}", arch)
    return effort


def no_device(what: str, arch: GpuArch) -> NoDeviceError:
    """The error for options that measure on a GPU that is not in this machine."""
    return NoDeviceError(
        f"{what}: this measures, and there is no {arch.title} in this machine; "
        "use --effort predict (with --trials N to search longer)"
    )
