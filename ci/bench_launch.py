"""Times what a bound kernel's launch costs the host beyond Triton's compiled-kernel call.

    python ci/bench_launch.py --limit-us 5

Three ways to start the same binary with the same arguments: the compiled kernel's own call,
`compiled[grid](...)`; Triton's `jit` call, `function[grid](...)`, which looks the binary up by its
arguments; and `launch` as an engine calls it, sizes looked up in a table of kernels first. Without
a GPU the kernels are compiled for one all the same, and a stub takes the place of the driver's
launch: it does nothing. Least and median, over repeats taken in turns, of the mean over a window;
time is that of the thread. Decode attention that splits contexts starts two kernels: per kernel.
"""

from __future__ import annotations

import argparse
import inspect
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from stub_driver import StubDriver

from autotune.arch import GpuArch, lookup
from autotune.config import KnobValue
from autotune.dispatch import remembering_launch
from autotune.kernels import load_kernel
from autotune.paths import cache_dir, templates_dir
from autotune.registry import BoundKernel, Resolved, Tier
from autotune.render import TemplateFolder, import_file
from runtime.kernel_table import LaunchTable

_PROBLEMS: dict[str, tuple[str, dict[str, KnobValue]]] = {
    "paged_attention_decode": (
        "block_size=16,num_seqs=4,context_len=64",
        {"variant": "unsplit", "num_splits": 1},
    ),
    "paged_attention_decode, split": (
        "block_size=16,num_seqs=4,context_len=1024",
        {"variant": "split", "num_splits": 4},
    ),
    "paged_attention_prefill": ("block_size=16,num_seqs=1,query_len=16,context_len=16", {}),
    "fused_mlp": ("n=256,k=256,m=1", {}),
    "dequant_gemm": ("n=256,k=256,m=64", {}),
    "rms_norm": ("residual=true,rows=1", {}),
    "rope_kv_write": ("num_tokens=1", {}),
    "quantize_per_token": ("rows=1", {}),
}


class Recorder:
    """Stands in for an entry point of a module: passes launches on, and keeps their arguments."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __getitem__(self, grid: Any) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            compiled = self.function[grid](*arguments, **options)
            self.calls.append((grid, arguments, options, compiled))
            return compiled

        return call


@dataclass(frozen=True, slots=True)
class Ways:
    """The same launches, three ways."""

    entries: int
    compiled: Callable[[], object]
    jit: Callable[[], object]
    ours: Callable[[], object]


def prepare(kernel: str, arch: GpuArch, device: str) -> Ways:
    """Compile a kernel's default at a small problem, and note what its launch passes on."""
    text, wanted = _PROBLEMS[kernel]
    kernel = kernel.partition(",")[0]
    spec = load_kernel(kernel)
    problem = spec.problem_type.parse(text)
    config = spec.default_config(problem, arch)
    if wanted:
        config = spec.space(problem, arch).closest({**config, **wanted})
    rendered = TemplateFolder(templates_dir()).render(spec, problem, config)
    module = import_file(rendered.write(cache_dir()))
    inputs = spec.bench_inputs(problem, 0, device)
    recorders = {name: Recorder(getattr(module, name)) for name in module.ENTRY_POINTS}
    for name, recorder in recorders.items():
        setattr(module, name, recorder)
    launches: list[tuple[Any, ...]] = []

    def launch(*arguments: Any, **named: Any) -> None:
        launches.append((arguments, named))
        module.launch(*arguments, **named)

    class Noted:
        """A module whose launch is noted."""

    Noted.launch = staticmethod(launch)  # type: ignore[attr-defined]
    spec.run(Noted, problem, inputs)  # type: ignore[arg-type]
    for name, recorder in recorders.items():
        setattr(module, name, recorder.function)
    resolved = Resolved(kernel, problem, config, Tier.DEFAULT, None, "")
    bound = BoundKernel(resolved, remembering_launch(module))
    table = LaunchTable((8, 64), (bound.launch, bound.launch, bound.launch))
    calls = [(r.function, *call) for r in recorders.values() for call in r.calls]
    # By place, as an engine calls most of them.
    ((given, named),) = launches
    arguments = inspect.signature(module.launch).bind(*given, **named).args
    full = [(*grid, 1, 1)[:3] for _, grid, *_ in calls]

    def compiled() -> None:
        for (_, _, given, _, binary), grid in zip(calls, full, strict=True):
            binary[grid](*given)

    def jit() -> None:
        for function, grid, given, options, _ in calls:
            function[grid](*given, **options)

    def ours() -> None:
        table.at(16)(*arguments)

    return Ways(len(calls), compiled, jit, ours)


def measure(ways: Ways, window: int, repeats: int) -> dict[str, tuple[float, float]]:
    """Least and median microseconds per launch of each way, and what ours adds to the first."""
    found: dict[str, list[float]] = {"compiled": [], "jit": [], "ours": []}
    for _ in range(repeats):
        for name, taken in found.items():
            call = getattr(ways, name)
            begun = time.thread_time()
            for _ in range(window):
                call()
            taken.append((time.thread_time() - begun) / window / ways.entries * 1e6)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
    added = [
        ours - compiled for ours, compiled in zip(found["ours"], found["compiled"], strict=True)
    ]
    least = {name: min(taken) for name, taken in found.items()}
    figures = {name: (least[name], statistics.median(taken)) for name, taken in found.items()}
    figures["added"] = (least["ours"] - least["compiled"], statistics.median(added))
    return {name: (round(low, 2), round(mid, 2)) for name, (low, mid) in figures.items()}


def main() -> int:
    """Print one line per kernel; exits 1 if one adds more than `--limit-us`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernel", choices=sorted(_PROBLEMS), action="append")
    parser.add_argument("--gpu", default="a100", help="to compile for, where there is none")
    parser.add_argument("--window", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--limit-us", type=float, help="fail if the least added is more than this")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    arch, device = lookup(args.gpu), "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        StubDriver(arch).activate()
    rows: list[dict[str, Any]] = []
    counts = (args.window, args.repeats)
    for kernel in args.kernel or _PROBLEMS:
        ways = prepare(kernel, arch, device)
        rows.append({"kernel": kernel, "entries": ways.entries, **measure(ways, *counts)})
    if args.json:
        print(json.dumps(rows))
    else:
        print("microseconds per launch, least/median: ", end="")
        print("compiled kernel alone, jit call, launch; added to the first")
        columns = ("compiled", "jit", "ours", "added")
        for row in rows:
            cells = "  ".join("{:6.2f}/{:6.2f}".format(*row[column]) for column in columns)
            print(f"{row['kernel']:<30} {cells}")
    return int(args.limit_us is not None and max(row["added"][0] for row in rows) > args.limit_us)


if __name__ == "__main__":
    raise SystemExit(main())
