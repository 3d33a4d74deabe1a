"""A kernel small enough to search in full, and a compiler that makes its facts up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from record_cases import make_report, make_work, sha

from autotune.arch import GpuArch
from autotune.build import Builder
from autotune.config import Config
from autotune.kernels.spec import Inputs, KernelSpec, Tolerance, Work
from autotune.knob import Constraint, Knob
from autotune.model_shape import ModelShape
from autotune.problem import Problem, exact, nearest
from autotune.records import Environment, Evaluation, Status
from autotune.render import TemplateFolder
from autotune.space import SearchSpace

if TYPE_CHECKING:
    import torch

TEMPLATE = """{% include "include/part.jinja" %}
TILE = {{ tile }}
MODE = "{{ mode }}"
DTYPE = "{{ dtype }}"
LANES = {{ lanes }}
WARPS = {{ num_warps }}
STAGES = {{ num_stages }}
"""


@dataclass(frozen=True)
class ToyProblem(Problem):
    kernel: ClassVar[str] = "toy"

    dtype: str = exact("bf16", "dtype", ("bf16", "fp32"))
    width: int = exact(64, "columns")
    m: int = nearest(16, "rows")


class ToyKernel:
    """4 tiles × 3 modes × 3 warps × 2 stages less the illegal, and 3 host splits."""

    name: ClassVar[str] = "toy"
    template: ClassVar[str] = "toy.py.jinja"
    problem_type = ToyProblem

    def space(self, problem: ToyProblem, arch: GpuArch) -> SearchSpace:
        return SearchSpace(
            (
                Knob("tile", (16, 32, 64, 128), "rows per step"),
                Knob("mode", ("a", "b", "c"), "a name", ordered=False),
                Knob("num_warps", (1, 2, 4), "warps"),
                Knob("num_stages", (1, 2), "stages"),
                Knob("splits", (1, 2, 4), "ranges", host=True),
            ),
            (Constraint("too many warps", ("tile", "num_warps"), lambda t, w: t >= 16 * w),),
        )

    def default_config(self, problem: ToyProblem, arch: GpuArch) -> Config:
        return self.space(problem, arch).config(
            tile=32, mode="a", num_warps=2, num_stages=1, splits=1
        )

    def template_values(self, problem: ToyProblem, config: Config) -> Mapping[str, Any]:
        return {"lanes": 32 * config.number("num_warps")}

    def reduction_order(self, problem: ToyProblem, config: Config, arch: GpuArch) -> Config:
        return Config({name: config[name] for name in ("tile", "splits")})

    def work(self, problem: ToyProblem, config: Config, arch: GpuArch) -> tuple[Work, ...]:
        splits = config.number("splits")
        steps = problem.m * 16.0 / config.number("tile") / splits
        return (
            make_work(
                grid=16 * splits,
                loop_steps=steps,
                longest_steps=steps,
                flops=1e6 * problem.m,
                dram_bytes=1e4 * problem.m,
                l2_bytes=1e4 * problem.m,
            ),
        )

    def flops(self, problem: ToyProblem) -> float:
        return 1e6 * problem.m

    def min_bytes(self, problem: ToyProblem) -> float:
        return 1e4 * problem.m

    def expected_mma(self, problem: ToyProblem, config: Config, arch: GpuArch) -> str | None:
        return "mma"

    def problems(
        self, shape: ModelShape, dtype: str, block_sizes: tuple[int, ...]
    ) -> list[ToyProblem]:
        return [ToyProblem(dtype=dtype)]

    def points(self, cell: ToyProblem) -> list[ToyProblem]:
        return [cell.at(m=m) for m in (16, 1024)]

    def hard_problems(self) -> list[ToyProblem]:
        return [ToyProblem()]

    def make_inputs(self, problem: ToyProblem, seed: int, device: str) -> Inputs:
        raise AssertionError("the toy is never launched")

    def bench_inputs(self, problem: ToyProblem, seed: int, device: str) -> Inputs:
        raise AssertionError("the toy is never launched")

    def reference(self, problem: ToyProblem, inputs: Inputs) -> torch.Tensor:
        raise AssertionError("the toy is never launched")

    def run(self, module: ModuleType, problem: ToyProblem, inputs: Inputs) -> torch.Tensor:
        raise AssertionError("the toy is never launched")

    def values(self, problem: ToyProblem, inputs: Inputs, out: torch.Tensor) -> torch.Tensor:
        return out

    def tolerance(self, problem: ToyProblem) -> Tolerance:
        return Tolerance(relative=1e-3, elementwise=1e-3)


def write_templates(folder: Path) -> TemplateFolder:
    """The toy's template and the file that it includes."""
    (folder / "include").mkdir(parents=True)
    (folder / "toy.py.jinja").write_text(TEMPLATE)
    (folder / "include" / "part.jinja").write_text("# shared part\n")
    return TemplateFolder(folder)


Verdict = Callable[[Config], Evaluation]


def sound(config: Config, **changes: Any) -> Evaluation:
    """Facts that depend on all knobs: more warps and stages cost registers, modes differ."""
    tile, warps = config.number("tile"), config.number("num_warps")
    device = {name: value for name, value in config.items() if name != "splits"}
    facts = {
        "registers": 32 + tile,
        "shared_bytes": 512 * tile * config.number("num_stages"),
        "num_warps": warps,
        "num_stages": config.number("num_stages"),
        "loop": {
            "mma": tile // warps,
            "async_copy": 4,
            "float": 10 * "abc".index(str(config["mode"])),
        },
        "binary_sha": sha(str(device)),
    }
    return Evaluation(config, Status.OK, reports=(make_report(**facts | changes),))


class FakeBuilder(Builder):
    """Judges by a function; remembers what it was asked for."""

    def __init__(self, arch: GpuArch, templates: TemplateFolder, verdict: Verdict = sound) -> None:
        self.arch = arch
        self.templates = templates
        self.environment = Environment(triton="0", assembler="none 0")
        self.compiled = 0
        self.asked: list[Config] = []
        self._verdict = verdict

    def evaluate(
        self,
        spec: KernelSpec[Any],
        problem: Problem,
        configs: Sequence[Config],
        on_done: Callable[[], None] = lambda: None,
    ) -> list[Evaluation]:
        """Judge at once, in order."""
        self.asked += configs
        for _ in configs:
            on_done()
        return [self._verdict(config) for config in configs]
