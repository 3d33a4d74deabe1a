"""What every kernel's spec must keep, whatever the GPU and the model: counts, defaults, names."""

from __future__ import annotations

import pytest

from autotune.arch import lookup
from autotune.kernels import KERNELS, load_kernel
from autotune.model_shape import PRESETS
from autotune.paths import templates_dir
from autotune.render import TemplateFolder

GPUS = ("rtx3090", "b200", "mi300x")
MODELS = ("llama-3.1-8b", "qwen3-0.6b", "gemma-2-9b", "phi-3-mini")


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_cells_of_models(kernel: str, gpu: str) -> None:
    spec, arch = load_kernel(kernel), lookup(gpu)
    for name in MODELS:
        shape = PRESETS[name]
        for cell in spec.problems(shape, shape.dtype, (16, 128)):
            space = spec.space(cell, arch)
            for point in spec.points(cell):
                where = f"{name}: {point.label()}"
                default = spec.default_config(point, arch)
                assert space.why_illegal(default) is None, where
                works = spec.work(point, default, arch)
                # A kernel cannot do less than the task asks: pads, partial sums and re-reads add.
                assert sum(work.flops for work in works) >= 0.999 * spec.flops(point), where
                assert sum(work.dram_bytes for work in works) >= 0.999 * spec.min_bytes(point)
                for work in works:
                    assert work.grid > 0, where
                    assert work.longest_steps >= work.loop_steps > 0, where
                    assert work.l2_bytes > 0, where
                    assert work.step_bytes > 0, where


@pytest.mark.parametrize("kernel", KERNELS)
def test_work_names_the_template_s_entry_points(kernel: str) -> None:
    spec, arch = load_kernel(kernel), lookup("h100")
    templates = TemplateFolder(templates_dir())
    for point in spec.points(spec.problem_type()):
        config = spec.default_config(point, arch)
        source = templates.render(spec, point, config).source
        table = source[source.index("ENTRY_POINTS") : source.index("def launch")]
        names = [work.entry for work in spec.work(point, config, arch)]
        positions = [table.index(f'"{name}": {{') for name in names]
        assert positions == sorted(positions), "launch order"
        assert table.count('"signature"') == len(names)


@pytest.mark.parametrize("kernel", KERNELS)
def test_host_knobs_do_not_reach_the_device_code(kernel: str) -> None:
    """Configurations that share a binary differ in their launch code only."""
    spec, arch = load_kernel(kernel), lookup("a100")
    problem = spec.problem_type()
    templates = TemplateFolder(templates_dir())
    space = spec.space(problem, arch)
    groups = [configs for configs in space.binaries.values() if len(configs) > 1][:20]
    if not any(knob.host for knob in space.knobs):
        assert not groups
    for configs in groups:
        first, last = (
            templates.render(spec, problem, config).source.splitlines()[4:]
            for config in (configs[0], configs[-1])
        )
        assert len(first) == len(last)
        changed = [a for a, b in zip(first, last, strict=True) if a != b]
        assert all("constexpr" not in line and "tl." not in line for line in changed), changed
