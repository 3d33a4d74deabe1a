"""The house's floor plan: imports go down, and the doors between packages are few."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Lowest first. A module may import from rows above its own here, never from its own row or below.
# "package.*" is an open row, all else of that package: adding a kernel or a command takes no edit
# here. Modules of an open row may build on each other, without cycles.
LAYERS = (
    ("autotune", "autotune.compiler", "autotune.search", "autotune.gate",
     "autotune.report", "autotune.winners"),
    ("autotune.errors", "autotune.sm", "autotune.deadline", "autotune.effort", "autotune.progress",
     "autotune.portfolio", "autotune.canary", "autotune.gate.verdict", "autotune.curves",
     "autotune.policy", "autotune.clocks", "autotune.interpreted",
     "autotune.interpreted_bf16", "autotune.scratch", "autotune.config",
     "autotune.host_work", "autotune.objective", "autotune.gpu_arch", "autotune.gpu_rows",
     "autotune.compiler.loops"),
    ("autotune.gpu_rows.*",),
    ("autotune.paths", "autotune.files", "autotune.arch", "autotune.json_fields",
     "autotune.json_shape", "autotune.repeat", "autotune.knob"),
    ("autotune.space", "autotune.problem", "autotune.model_shape", "autotune.device",
     "autotune.device_clocks", "autotune.stopwatch", "autotune.race_log"),
    ("autotune.pool", "autotune.records", "autotune.kernels.spec", "autotune.kernels.dtypes",
     "autotune.dispatch", "autotune.library.routine"),
    ("autotune.kernels", "autotune.recorded", "autotune.race", "autotune.occupancy",
     "autotune.correctness", "autotune.peers", "autotune.peers.refusal",
     "autotune.library"),
    ("autotune.launch", "autotune.coefficients"),
    ("autotune.kernels.*", "autotune.compiler.cross", "autotune.compiler.mix",
     "autotune.compiler.toolchain", "autotune.judge", "autotune.cost_model", "autotune.tiles",
     "autotune.render", "autotune.foreign_spaces", "autotune.testbed", "autotune.library.*"),
    ("autotune.compiler.facts", "autotune.prior", "autotune.report_cache", "autotune.results",
     "autotune.verify", "autotune.recorded_files", "autotune.binary_facts",
     "autotune.peers.*"),
    ("autotune.simulated",),
    ("autotune.evaluate", "autotune.build", "autotune.cell", "autotune.registry",
     "autotune.winners.*"),
    ("autotune.worker", "autotune.select", "autotune.gpu", "autotune.standing",
     "autotune.warm_starts",
     "autotune.search.candidates", "autotune.search.journal", "autotune.search.turns"),
    ("autotune.record", "autotune.model_case"),
    ("autotune.model_fit", "autotune.model_score"),
    ("autotune.model_report",),
    ("autotune.measure", "autotune.search.history", "autotune.search.trials", "autotune.gate.*",
     "autotune.export.*", "autotune.search.shared"),
    ("autotune.search.startup",),
    ("autotune.search.classifier", "autotune.search.forest", "autotune.search.gaussian"),
    ("autotune.search.blend",),
    ("autotune.search.samplers", "autotune.export", "autotune.report.*"),
    ("autotune.search.ledger",),
    ("autotune.study",),
    ("autotune.conclusion",),
    ("autotune.tune", "autotune.replay", "autotune.search.leases"),
    ("autotune.shared_search",),
    ("autotune.fleet",),
    ("autotune.curve_plot",),
    ("autotune.cli.exit_codes",),
    ("autotune.cli",),
    ("autotune.cli.output", "autotune.cli.types", "autotune.cli.trust"),
    ("autotune.cli.summary",),
    ("autotune.cli.*",),
    ("autotune.__main__",),
)  # fmt: skip

DOORS_OF_RUNTIME = {"autotune.registry", "autotune.arch"}
TORCH_FREE_RUNTIME = ("block_manager", "scheduler", "sequence")
HEAVY = ("torch", "triton", "optuna", "sklearn", "transformers")


def modules(package: str) -> dict[str, Path]:
    """Name → file of every module of a top-level package."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    assert found, f"no package {package} in {ROOT}"
    return found


def imported(path: Path) -> Iterator[str]:
    """Names that a file imports anywhere: in functions and under TYPE_CHECKING, too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def edges(package: str, targets: Mapping[str, Path]) -> dict[str, set[str]]:
    """Module → modules among `targets` that it imports."""
    graph = {}
    for name, path in modules(package).items():
        found = set()
        for target in imported(path):
            # `from package.module import name` imports the module; `import package.module`, too.
            owner = target if target in targets else target.rpartition(".")[0]
            if owner in targets and owner != name:
                found.add(owner)
        graph[name] = found
    return graph


def rank_of(module: str) -> int | None:
    """Row of a module, by its own name before its package's open row."""
    for wanted in (module, f"{module.rpartition('.')[0]}.*"):
        for rank, row in enumerate(LAYERS):
            if wanted in row:
                return rank
    return None


def upward(graph: Mapping[str, set[str]]) -> list[str]:
    """Imports that do not go down."""
    bad = []
    for module, targets in graph.items():
        for target in sorted(targets):
            own, other = rank_of(module), rank_of(target)
            assert own is not None, f"{module} is in no row of LAYERS"
            assert other is not None, f"{target} is in no row of LAYERS"
            siblings = (
                module not in LAYERS[own]
                and target not in LAYERS[other]
                and module.rpartition(".")[0] == target.rpartition(".")[0]
            )
            if other > own or (other == own and not siblings):
                bad.append(f"{module} (row {own}) imports {target} (row {other})")
    return bad


def test_every_module_has_a_row_and_every_row_a_module() -> None:
    known = modules("autotune")
    assert [name for name in known if rank_of(name) is None] == []
    named = {name for row in LAYERS for name in row if not name.endswith(".*")}
    assert named - known.keys() == set()


def test_imports_go_down() -> None:
    assert upward(edges("autotune", modules("autotune"))) == []


@pytest.mark.parametrize("package", ["autotune", "runtime"])
def test_no_import_cycles(package: str) -> None:
    graph = edges(package, modules(package))
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_the_check_sees_what_it_forbids() -> None:
    assert upward({"autotune.space": {"autotune.records"}})
    assert upward({"autotune.files": {"autotune.paths"}}), "the same row counts as upwards"
    assert not upward({"autotune.kernels.one": {"autotune.kernels.two"}})


def test_autotune_knows_nothing_of_runtime() -> None:
    everything = modules("runtime")
    assert not any(edges("autotune", everything).values())


def test_runtime_enters_autotune_by_two_doors() -> None:
    graph = edges("runtime", modules("autotune"))
    assert {m: t - DOORS_OF_RUNTIME for m, t in graph.items() if t - DOORS_OF_RUNTIME} == {}


@pytest.mark.parametrize(
    ("library", "owners"),
    [
        ("optuna", "autotune.search."),
        ("sklearn", "autotune.search."),
        ("jinja2", ("autotune.render", "runtime.chat_template", "runtime.template_sandbox")),
        ("jsonschema", "autotune.results"),
        ("pynvml", ("autotune.device", "autotune.device_clocks")),
        ("ray", "autotune.cli.ray_launcher"),
        ("ml_dtypes", "autotune.interpreted_bf16"),
        ("sqlalchemy", "autotune.search."),
        ("matplotlib", ("autotune.curve_plot", "autotune.report.figures")),
    ],
)
def test_a_library_has_its_home(library: str, owners: str | tuple[str, ...]) -> None:
    users = {
        name
        for package in ("autotune", "runtime")
        for name, path in modules(package).items()
        if any(target.split(".")[0] == library for target in imported(path))
    }
    assert users, f"nobody imports {library}: is this row stale?"
    assert {name for name in users if not name.startswith(owners)} == set()


@pytest.mark.parametrize(
    "statement",
    [
        "import autotune",
        "import autotune.registry",
        "import autotune.cli; autotune.cli.main(['gpus'])",
        "import autotune.cli; autotune.cli.main(['kernels', '--kernel', 'fused_mlp'])",
        "import contextlib, autotune.cli\n"
        "with contextlib.suppress(SystemExit): autotune.cli.main(['--help'])",
        *(f"import runtime.{name}" for name in TORCH_FREE_RUNTIME),
    ],
)
def test_loads_nothing_heavy(statement: str) -> None:
    code = f"import sys\n{statement}\nprint(sorted(set(sys.modules) & set({HEAVY})))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "[]"
