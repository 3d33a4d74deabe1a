"""`autotune show`."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from autotune.arch import GPUS, GpuArch, lookup
from autotune.cli.output import print_json, print_table
from autotune.cli.trust import trust_line
from autotune.compiler.cross import Binary, cross_compile
from autotune.compiler.facts import disassemble, report
from autotune.config import KnobValue
from autotune.errors import UnknownChoiceError, UsageError
from autotune.judge import find_fault
from autotune.kernels import KERNELS, load_kernel
from autotune.kernels.spec import KernelSpec
from autotune.occupancy import occupancy
from autotune.paths import cache_dir, results_dirs, templates_dir
from autotune.problem import Problem
from autotune.records import Selection, to_json
from autotune.registry import Resolved, TunedKernels
from autotune.render import RenderedKernel, TemplateFolder, import_file
from autotune.results import ResultsStore

EXAMPLES = """examples:
  autotune show paged_attention_decode --gpu a100           all selections, and why
  autotune show paged_attention_decode --gpu a100 --problem block_size=64,num_seqs=8
  autotune show paged_attention_decode --gpu a100 --problem kv_dtype=int8,sinks=true --source
  autotune show fused_mlp --gpu h100 --facts                registers, spills, occupancy, loop
  autotune show fused_mlp --gpu h100 --problem m=1024 --knobs load=descriptor --facts
  autotune show dequant_gemm --gpu mi300x --source | less   the generated Triton module"""

_VIEWS = {
    "source": "the generated module",
    "ttgir": "Triton's GPU IR",
    "ptx": "PTX (AMD: assembly)",
    "sass": "machine code",
    "facts": "what the compiler says",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("kernel", metavar="KERNEL", help=", ".join(KERNELS))
    parser.add_argument("--gpu", required=True, help=", ".join(GPUS))
    parser.add_argument("--problem", metavar="AXIS=VALUE,...", help="axes; the rest at defaults")
    parser.add_argument(
        "--knobs", metavar="KNOB=VALUE,...", help="instead of the selection's; variants, too"
    )
    parser.add_argument("--results", metavar="DIR", help="results folder to read")
    views = parser.add_mutually_exclusive_group()
    for view, meaning in _VIEWS.items():
        views.add_argument(
            f"--{view}", dest="view", action="store_const", const=view, help=f"print {meaning}"
        )
    parser.add_argument("--json", action="store_true", help="print JSON")


def handle(options: argparse.Namespace) -> int:
    """Print the table of selections, or one view of one selection."""
    spec, arch = load_kernel(options.kernel), lookup(options.gpu)
    if options.view is None and options.problem is None and options.knobs is None:
        return _table(spec, arch, options)
    tuned = TunedKernels.load(arch.name, options.results)
    problem = spec.problem_type.parse(options.problem or "")
    resolved = tuned.resolve(spec.name, problem)
    if options.knobs is not None:
        resolved = _changed(spec, arch, resolved, options.knobs)
    rendered = TemplateFolder(templates_dir()).render(spec, problem, resolved.config)
    if options.view is None:
        return _one(spec, arch, resolved, options.json)
    if options.view == "source":
        print(rendered.source, end="")
        return 0
    binaries = cross_compile(import_file(rendered.write(cache_dir())), arch)
    if options.view == "facts":
        return _facts(spec, arch, problem, resolved, rendered, binaries, options.json)
    for binary in binaries:
        print(_text(binary, arch, options.view))
    return 0


def _changed(spec: KernelSpec[Any], arch: GpuArch, resolved: Resolved, text: str) -> Resolved:
    """The selection with some knobs at other values."""
    space = spec.space(resolved.problem, arch)
    known = {knob.name: knob.values for knob in (*space.knobs, *space.variants)}
    changes: dict[str, KnobValue] = {}
    for part in text.split(","):
        name, separator, word = part.strip().partition("=")
        if not separator:
            raise UsageError(f"{part!r} is not of the form knob=value")
        if name not in known:
            raise UnknownChoiceError(f"knob of {spec.name}", name, known)
        values = {str(value).lower(): value for value in known[name]}
        if word.lower() not in values:
            raise UnknownChoiceError(name, word, values)
        changes[name] = values[word.lower()]
    return dataclasses.replace(
        resolved,
        config=space.stored(space.config(**{**resolved.config, **changes})),
        selection=None,
        library=None,
        source=f"{resolved.source}; changed by --knobs",
    )


def _text(binary: Binary, arch: GpuArch, view: str) -> str:
    if view == "sass":
        return disassemble(binary, arch)
    stage = "amdgcn" if view == "ptx" and arch.vendor == "amd" else view
    text: str = binary.asm[stage]
    return text


def _table(spec: KernelSpec[Any], arch: GpuArch, options: argparse.Namespace) -> int:
    selections: list[Selection] = []
    for folder in results_dirs(options.results):
        for cell in ResultsStore(folder).read(arch.name, spec.name):
            selections += cell.selections
    if options.json:
        print_json([{**to_json(selection), "gain": selection.gain} for selection in selections])
        return 0
    if not selections:
        print(
            f"nothing stored for {spec.name} on {arch.name}; run: "
            f"autotune run --gpu {arch.name} --kernel {spec.name}"
        )
        return 0
    by_cell: dict[str, list[Selection]] = {}
    for selection in selections:
        label = spec.problem_type.from_axes(selection.exact).label("exact").replace(",", " ")
        by_cell.setdefault(label, []).append(selection)
    for label, members in by_cell.items():
        columns = (*members[0].nearest, ">µs", ">floor", ">default", ">gain", "from", "why")
        print_table(label, columns, [_row(member) for member in members])
        print()
    print(trust_line(spec.name, arch))
    return 0


def _row(selection: Selection) -> tuple[str, ...]:
    return (
        *map(str, selection.nearest.values()),
        _number(selection.time_us),
        _number(selection.floor_us),
        _number(selection.default_us),
        "-" if selection.gain is None else f"{selection.gain:.2f}x",
        selection.provenance.value,
        selection.reason,
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _one(spec: KernelSpec[Any], arch: GpuArch, resolved: Resolved, as_json: bool) -> int:
    selection = resolved.selection
    if as_json:
        print_json(
            {
                "kernel": spec.name,
                "problem": resolved.problem.label(),
                "config": dict(resolved.config),
                "library": resolved.library,
                "tier": resolved.tier.value,
                "source": resolved.source,
                "selection": None if selection is None else to_json(selection),
            }
        )
        return 0
    print(f"{spec.name}  {resolved.problem.label()}")
    if resolved.library is not None:
        print(f"library  {resolved.library}, faster than any kernel; of those the fastest is")
    print(f"config   {resolved.config}")
    print(f"from     {resolved.source}")
    if selection is not None and selection.time_us is not None:
        error = f" (×÷ {selection.error_factor:g})" if selection.error_factor else ""
        gain = "" if selection.gain is None else f", {selection.gain:.2f}x the default"
        print(f"time     {selection.time_us:.1f} µs {selection.provenance}{error}{gain}, "
              f"floor {selection.floor_us:.1f} µs")  # fmt: skip
        print(f"why      {selection.reason}")
        if selection.error_factor:
            print(f"trust    {trust_line(spec.name, arch)}")
    return 0


def _facts(
    spec: KernelSpec[Any],
    arch: GpuArch,
    problem: Problem,
    resolved: Resolved,
    rendered: RenderedKernel,
    binaries: tuple[Binary, ...],
    as_json: bool,
) -> int:
    reports = [report(binary, arch) for binary in binaries]
    expected = spec.expected_mma(problem, resolved.config, arch)
    fault = find_fault(reports, arch, expected)
    if as_json:
        print_json(
            {
                "config": dict(resolved.config),
                "source": resolved.source,
                "fault": None if fault is None else {"status": fault[0].value, "reason": fault[1]},
                "reports": [to_json(item) for item in reports],
            }
        )
        return 0
    print(f"config   {rendered.config}\nfrom     {resolved.source}")
    print("verdict  " + ("sound" if fault is None else f"{fault[0]}: {fault[1]}"))
    for item in reports:
        fit = occupancy(item, arch)
        print(
            f"\n{item.entry}\n"
            f"  registers {item.registers}, stack {item.stack_bytes} B, "
            f"shared {item.shared_bytes} B of {arch.shared_bytes_per_block}\n"
            f"  {item.num_warps} warps, {item.num_stages} stages; {fit.blocks} blocks per SM, "
            f"limited by {fit.limiter}\n"
            f"  matrix instructions: {item.mma or 'none'}; binary {item.binary_bytes} B, "
            f"sha {item.binary_sha}\n"
            f"  main loop, per warp: "
            + (", ".join(f"{count} {kind}" for kind, count in item.loop.items()) or "none")
        )
    return 0
