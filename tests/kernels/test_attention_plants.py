"""Faults planted in the attention templates, each known from somebody's kernel: checks see them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from autotune.arch import GPUS
from autotune.kernels import load_kernel
from autotune.paths import templates_dir
from autotune.pool import WorkerPool
from autotune.records import Status
from autotune.render import TemplateFolder
from autotune.verify import Case, verify_in

# Kernel and problem; a template and what is broken in it.
PLANTS = {
    "the sink in every range": (
        "decode", "sinks=true", "paged_attention_decode.py.jinja",
        "split == 0", "split >= 0"),
    "the sink without base 2": (
        "prefill", "sinks=true", "paged_attention_prefill.py.jinja",
        "tl.load(sinks_ptr + heads) * LOG2_E", "tl.load(sinks_ptr + heads)"),
    "the sinks of the first group": (
        "decode", "sinks=true", "paged_attention_decode.py.jinja", "sinks_ptr + heads",
        "sinks_ptr + rows"),
    "distances without a sign": (
        "decode", "alibi=true", "paged_attention_decode.py.jinja",
        "(positions - (context_len - 1))", "((context_len - 1) - positions)"),
    "slopes without base 2": (
        "prefill", "alibi=true", "paged_attention_prefill.py.jinja",
        "tl.load(alibi_slopes_ptr + heads) * LOG2_E", "tl.load(alibi_slopes_ptr + heads)"),
    "one scale for all heads": (
        "decode", "kv_dtype=int8", "paged_attention_decode.py.jinja",
        "tl.load(v_scale_ptr + kv_head)", "tl.load(v_scale_ptr)"),
    "keys without their scales": (
        "prefill", "kv_dtype=int8,kv_scale=token", "include/paged.jinja",
        "(scale_log2 * k_scales)[None, :]", "(scale_log2 + 0.0 * k_scales)[None, :]"),
    "scales of unwritten slots": (
        "decode", "kv_dtype=int8,kv_scale=token", "include/paged.jinja",
        "base_ptr + offsets, mask=positions < end", "base_ptr + offsets, mask=positions < end + 4"),
    "sums in the unit of the tile before": (
        "decode", "kv_dtype=int8,kv_scale=token", "include/paged.jinja",
        "decay * (unit / safe_unit)", "decay"),
    "sums rescaled the wrong way": (
        "prefill", "kv_dtype=fp8,kv_scale=token", "include/paged.jinja",
        "decay * (unit / safe_unit)", "decay * (safe_unit / tl.maximum(unit, 1e-30))"),
    "tanh as a quotient of exponentials": (
        "decode", "softcap=1.5", "include/paged.jinja",
        "(1.0 - 2.0 / (halves + 1.0))", "((halves - 1.0) / (halves + 1.0))"),
    "a row that has seen no key yet": (
        "prefill", "window=3", "paged_attention_prefill.py.jinja",
        'tl.where(new_max == float("-inf"), 0.0, new_max)', "new_max"),
    "ranges without keys, merged": (
        "decode", "", "paged_attention_decode.py.jinja",
        'tl.where(new_max == float("-inf"), 0.0, new_max)', "new_max"),
    "zero over zero": (
        "decode", "", "paged_attention_decode.py.jinja",
        "acc / tl.where(row_sum == 0.0, 1.0, row_sum)\n", "acc / row_sum\n"),
    "values that nobody wrote": (
        "decode", "", "include/paged.jinja",
        "keep = (positions < end)[:, None]", "keep = (positions < end + 4)[:, None]"),
    "a window one token wider": (
        "decode", "window=17", "paged_attention_decode.py.jinja",
        "positions >= context_len - WINDOW)", "positions > context_len - WINDOW - 2)"),
    "minus infinity times a scale of zero": (
        "prefill", "kv_dtype=int8", "paged_attention_prefill.py.jinja",
        "tl.maximum(tl.load(k_scale_ptr + kv_head), 1e-30)", "tl.load(k_scale_ptr + kv_head)"),
    "values without the 256": (
        "prefill", "kv_dtype=fp8", "include/paged.jinja", "& 0x7F) << 7)", "& 0x7F) << 6)"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTS)
def test_planted_faults_are_found(interpreter: WorkerPool, tmp_path: Path, name: str) -> None:
    kernel, variant, template, good, bad = PLANTS[name]
    folder = tmp_path / "templates"
    shutil.copytree(templates_dir(), folder)
    text = (folder / template).read_text()
    assert good in text
    (folder / template).write_text(text.replace(good, bad))
    spec, arch = load_kernel(f"paged_attention_{kernel}"), GPUS["a100"]
    sizes = "num_seqs=3,context_len=53,num_kv_heads=2,head_dim=16,group=2,dtype=fp16"
    more = ",query_len=9" if kernel == "prefill" else ""
    problem = spec.problem_type.parse(f"{variant},{sizes}{more}")
    knobs = {"tile": 16, "lookup": "scalar", "tail": "split_loop"}
    if kernel == "decode":
        knobs |= {"variant": "split", "num_splits": 2}
    config = spec.space(problem, arch).closest({**spec.default_config(problem, arch), **knobs})
    case = Case(spec, problem, config)
    (good_one,) = verify_in(
        interpreter, [case], TemplateFolder(templates_dir()), tmp_path, 1, "cpu"
    )
    assert good_one.status is Status.OK, good_one.reason
    (bad_one,) = verify_in(interpreter, [case], TemplateFolder(folder), tmp_path, 1, "cpu")
    assert bad_one.status is Status.WRONG_RESULT
