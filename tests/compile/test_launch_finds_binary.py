"""What the cross-compiler leaves in Triton's cache is what a launch on the device asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
import triton
from stub_driver import StubDriver

from autotune.arch import lookup
from autotune.compiler.cross import cross_compile
from autotune.kernels import KERNELS, load_kernel
from autotune.paths import templates_dir
from autotune.render import TemplateFolder, import_file

# Sizes at which counts and strides are multiples of 16, and at which they are not.
SIZES = {
    "paged_attention_decode": ("num_seqs=1,context_len=256", "num_seqs=3,context_len=100"),
    "paged_attention_prefill": (
        "num_seqs=1,query_len=16,context_len=256",
        "num_seqs=3,query_len=5,context_len=100",
    ),
    "fused_mlp": ("n=256,k=256,m=1", "n=256,k=256,m=16"),
    "dequant_gemm": ("n=256,k=256,m=1", "n=256,k=256,m=48"),
    "rms_norm": ("rows=1", "rows=16"),
    "rope_kv_write": ("num_tokens=1", "num_tokens=16"),
    "quantize_per_token": ("rows=1", "rows=16"),
}
# The default of the first size but for these: two kernels, whose split count is a multiple of 16.
KNOBS = {"paged_attention_decode": {"variant": "split", "num_splits": 16}}


@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_a_launch_compiles_nothing_anew(
    kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arch, spec = lookup("h200"), load_kernel(kernel)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    monkeypatch.setenv("TRITON_DISABLE_LINE_INFO", "1")  # as the GPU's process has it
    monkeypatch.setattr(triton.runtime.driver, "_active", StubDriver(arch))
    points = [spec.problem_type.parse(text) for text in SIZES[kernel]]
    default = spec.default_config(points[0], arch)
    config = spec.space(points[0], arch).closest({**default, **KNOBS.get(kernel, {})})
    path = TemplateFolder(templates_dir()).render(spec, points[0], config).write(tmp_path / "r")
    cross_compile(import_file(path), arch)
    left = sorted((tmp_path / "triton").rglob("*.cubin"))
    assert left, "the cross-compiler used another cache"
    for point in points:
        spec.run(import_file(path), point, spec.bench_inputs(point, 0, "cpu"))
        assert sorted((tmp_path / "triton").rglob("*.cubin")) == left, point.label()
