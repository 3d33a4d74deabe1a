"""Checks of the companion kernels in Triton's interpreter, for a process of their own.

Prints a JSON object: name of each check → what is wrong, null if nothing. Started with
TRITON_INTERPRET set.
"""

from __future__ import annotations

import json
import traceback
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from autotune.arch import lookup
from autotune.kernels import load_kernel
from autotune.kernels.output_buffer import is_untouched_between
from autotune.paths import cache_dir, templates_dir
from autotune.render import TemplateFolder, import_file

TEMPLATES = TemplateFolder(templates_dir())


def kernel(name: str, knobs: dict[str, Any] | None = None, **axes: Any) -> ModuleType:
    spec = load_kernel(name)
    problem, arch = spec.problem_type.from_axes(axes), lookup("a100")
    config = spec.default_config(problem, arch).replace(**(knobs or {}))
    assert config in spec.space(problem, arch)
    return import_file(TEMPLATES.render(spec, problem, config).write(cache_dir()))


def quantised(x: torch.Tensor, codes: str, **knobs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    dtype = {torch.float16: "fp16", torch.float32: "fp32"}[x.dtype]
    module = kernel("quantize_per_token", knobs, dtype=dtype, codes=codes, columns=x.shape[1])
    out = torch.empty(x.shape, dtype=torch.int8 if codes == "int8" else torch.float8_e4m3fn)
    scale = torch.full(x.shape[:1], 7.0)
    module.launch(out, scale, x)
    return out, scale


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def int8_rounds_to_nearest_even() -> None:
    quarters = torch.arange(-508, 509) / 4  # every code, and what lies between, ties included
    x = quarters[None].contiguous()
    codes, scale = quantised(x, "int8")
    assert scale.item() == 1.0
    assert torch.equal(codes[0].float(), quarters.round())
    x = draw(9, 200)
    codes, scale = quantised(x, "int8")
    assert torch.equal(scale, x.abs().amax(1) / 127.0)
    inverse = 127.0 / x.abs().amax(1)
    assert torch.equal(codes.float(), (x * inverse[:, None]).round())


def fp8_rounds_as_torch_does() -> None:
    known = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    known = known[known.isfinite()].unique()  # sorted, from -448 to 448
    middles = (known[1:] + known[:-1]) / 2  # ties
    above = torch.nextafter(middles, torch.tensor(torch.inf))
    below = torch.nextafter(middles, torch.tensor(-torch.inf))
    x = torch.cat((known, middles, above, below))[None].contiguous()
    codes, scale = quantised(x, "fp8")
    assert scale.item() == 1.0
    assert torch.equal(codes.float(), x.to(torch.float8_e4m3fn).float())
    x = draw(9, 200)
    codes, scale = quantised(x, "fp8")
    inverse = 448.0 / x.abs().amax(1)
    wanted = (x * inverse[:, None]).to(torch.float8_e4m3fn)
    assert torch.equal(codes.float(), wanted.float())


def what_is_not_finite_stays_in_its_row() -> None:
    for codes in ("int8", "fp8"):
        for knobs in ({}, {"block_rows": 1, "block_cols": 1024, "num_warps": 4}):
            x = draw(4, 1500)
            good, good_scale = quantised(x, codes, **knobs)
            x[1, 7], x[2, 1400] = torch.nan, -torch.inf
            found, scale = quantised(x, codes, **knobs)
            assert scale[1:3].isnan().all()
            assert not found[1:3].float().any()
            for row in (0, 3):
                assert torch.equal(found[row].float(), good[row].float())
                assert scale[row] == good_scale[row]


def zeros_and_specks_have_finite_scales() -> None:
    x = torch.zeros(3, 40)
    x[1] = 1e-45  # the least that is above zero
    x[2, 3] = 3e38
    for codes in ("int8", "fp8"):
        found, scale = quantised(x, codes)
        assert bool((scale > 0).all())
        assert scale.isfinite().all()
        assert not found[:2].float().any()
        assert found[2, 3].float() * scale[2] == pytest.approx(3e38, rel=1e-6)


def the_fused_norm_quantises_as_the_kernel_alone() -> None:
    x, residual, weight = draw(5, 1300).half(), draw(5, 1300, seed=1).half(), draw(1300).half()
    axes: dict[str, Any] = {"dtype": "fp16", "columns": 1300, "residual": True}
    for knobs in ({}, {"block_rows": 1, "block_cols": 1024, "num_warps": 8}):
        plain = kernel("rms_norm", knobs, **axes)
        out, total = torch.empty_like(x), torch.empty_like(x)
        plain.launch(out=out, total=total, residual=residual, x=x, weight=weight, eps=1e-6)
        for codes in ("int8", "fp8"):
            wanted, wanted_scale = quantised(out, codes)
            fused = kernel("rms_norm", knobs, **axes, quantised=codes)
            found, scale, sums = torch.empty_like(wanted), torch.empty(5), residual.clone()
            fused.launch(
                out=found, scale=scale, total=sums, residual=sums, x=x, weight=weight, eps=1e-6
            )
            assert torch.equal(found.float(), wanted.float())
            assert torch.equal(scale, wanted_scale)
            assert torch.equal(sums, total), "the sum may be written over the residual"


def heads_of_packed_projections_are_normed_in_place() -> None:
    packed = draw(3, 5 * 20)
    weight = draw(20, seed=1)
    for heads in (packed.view(3, 5, 20)[:, 1:3], packed.view(3, 5, 20).transpose(0, 1)):
        out = torch.empty(heads.shape)
        kernel("rms_norm", dtype="fp32", columns=20).launch(
            out=out, x=heads, weight=weight, eps=1e-6
        )
        mean = heads.double().square().mean(-1, keepdim=True)
        assert torch.allclose(out.double(), heads / (mean + 1e-6).sqrt() * weight, rtol=1e-6)
    x = draw(4, 20)
    wanted = torch.empty_like(x)
    module = kernel("rms_norm", dtype="fp32", columns=20)
    module.launch(out=wanted, x=x, weight=weight, eps=1e-6)
    module.launch(out=x, x=x, weight=weight, eps=1e-6)
    assert torch.equal(x, wanted)


def half_the_roundings_are_those_of_llama() -> None:
    x, weight = 100 * draw(6, 64).half(), draw(64, seed=1).half()
    out = torch.empty_like(x)
    kernel("rms_norm", dtype="fp16", columns=64).launch(out=out, x=x, weight=weight, eps=1e-6)
    wide = x.float()
    normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)
    assert torch.equal(out, normed.half() * weight)
    gemma = 1.0 + weight.float()
    kernel("rms_norm", dtype="fp16", columns=64, wide_weight=True).launch(
        out=out, x=x, weight=gemma, eps=1e-6
    )
    assert torch.equal(out, (normed * gemma).half())


def rotation_in_fp32_is_torchs_to_the_bit() -> None:
    q, k, v = draw(4, 3, 80), draw(4, 1, 80, seed=1), draw(4, 1, 80, seed=2)
    angles = draw(9, 32, seed=3)
    table = torch.stack((angles.cos(), angles.sin()), dim=1)
    positions, slots = torch.tensor([5, 0, 8, 5]), torch.tensor([17, 3, -1, 16])
    cache = torch.full((2, 2, 16, 1, 80), 7.0)
    k_cache, v_cache = cache[0].clone(), cache[1].clone()
    module = kernel("rope_kv_write", dtype="fp32", head_dim=80, unrotated=16)
    cos, sin = table[positions][:, None].unbind(2)  # [4, 1, 32]

    def turned(x: torch.Tensor) -> torch.Tensor:
        a, b, rest = x.split((32, 32, 16), dim=-1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin, rest), dim=-1)

    wanted = turned(q)
    module.launch(
        out=q, q=q, k=k, v=v, k_cache=k_cache, v_cache=v_cache, slots=slots,
        positions=positions, table=table,
    )  # fmt: skip
    assert torch.equal(q, wanted), "in place"
    for found, new in ((k_cache, turned(k)), (v_cache, v)):
        expected = torch.full((32, 1, 80), 7.0)
        expected[slots[[0, 1, 3]]] = new[[0, 1, 3]]
        assert torch.equal(found.flatten(0, 1), expected)


def pools_may_pass_two_to_the_31_elements() -> None:
    pages, block_size, heads, dim = 40_000, 16, 60, 64  # 2.5e9 codes, of which few are touched
    pools = [torch.from_numpy(np.zeros((pages, block_size, heads, dim), np.int8)) for _ in range(2)]
    k, v = draw(2, heads, dim), draw(2, heads, dim, seed=1)
    slots = torch.tensor([pages * block_size - 1, 5])
    scale = torch.full((heads,), 0.05)
    module = kernel(
        "rope_kv_write", {"block_heads": 32, "num_warps": 8},
        dtype="fp32", kv_dtype="int8", kv_scale="head", style="none", head_dim=dim,
    )  # fmt: skip
    module.launch(
        k=k, v=v, k_cache=pools[0], v_cache=pools[1], k_scale=scale, v_scale=scale, slots=slots
    )
    for pool, new in zip(pools, (k, v), strict=True):
        found = pool.view(-1, heads, dim)[slots].float()
        assert (found - (new / scale[:, None]).round().clamp(-127, 127)).abs().max() <= 1


def nothing_outside_the_outputs_is_written() -> None:
    for name in ("quantize_per_token", "rms_norm", "rope_kv_write"):
        spec = load_kernel(name)
        for problem in spec.hard_problems()[::3]:
            config = spec.default_config(problem, lookup("a100"))
            module = import_file(TEMPLATES.render(spec, problem, config).write(cache_dir()))
            inputs = spec.make_inputs(problem, 0, "cpu")
            spec.run(module, problem, inputs)
            start = inputs["out"].untyped_storage().data_ptr()
            views = {
                key: value
                for key, value in inputs.items()
                if isinstance(value, torch.Tensor)
                and key != "out"
                and value.untyped_storage().data_ptr() == start
            }
            if "k_cache" in views:  # both are in one pool, page by page
                pool = views.pop("k_cache")
                whole = (pool.shape[0] * pool.stride(0),)
                views["v_cache"] = torch.as_strided(pool, whole, (1,), pool.storage_offset())
            assert is_untouched_between(inputs, views), problem.label()


def odd_arguments_are_refused() -> None:
    norm = kernel("rms_norm", dtype="fp32", columns=16)
    x, weight = draw(2, 16), draw(16)
    with pytest.raises(ValueError, match="weight"):
        norm.launch(out=x, x=x, weight=draw(17), eps=1e-6)
    with pytest.raises(ValueError, match="contiguous"):
        norm.launch(out=torch.empty(2, 16), x=draw(16, 2).T, weight=weight, eps=1e-6)
    with pytest.raises(ValueError, match="scale"):
        kernel("quantize_per_token", dtype="fp32", columns=16).launch(
            torch.empty(2, 16, dtype=torch.int8), torch.empty(3), x
        )
    write = kernel("rope_kv_write", dtype="fp32", head_dim=16)
    cache, heads, index = torch.zeros(2, 4, 1, 16), draw(3, 1, 16), torch.arange(3)
    good = {
        "out": draw(3, 2, 16), "q": draw(3, 2, 16), "k": heads, "v": heads, "k_cache": cache,
        "v_cache": cache.clone(), "slots": index, "positions": index, "table": draw(3, 2, 8),
    }  # fmt: skip
    write.launch(**good)
    for name, wrong, words in (
        ("k", draw(3, 2, 16), "not this kernel's"),
        ("v", draw(3, 16, 2).transpose(1, 2)[:, :1], "contiguous"),
        ("v_cache", torch.zeros(2, 4, 2, 16)[:, :, :1], "strides"),
        ("out", draw(3, 3, 16), "q"),
        ("table", draw(3, 2, 4), "16 rotated"),
    ):
        with pytest.raises(ValueError, match=words):
            write.launch(**{**good, name: wrong})


CHECKS = (
    int8_rounds_to_nearest_even,
    fp8_rounds_as_torch_does,
    what_is_not_finite_stays_in_its_row,
    zeros_and_specks_have_finite_scales,
    the_fused_norm_quantises_as_the_kernel_alone,
    heads_of_packed_projections_are_normed_in_place,
    half_the_roundings_are_those_of_llama,
    rotation_in_fp32_is_torchs_to_the_bit,
    pools_may_pass_two_to_the_31_elements,
    nothing_outside_the_outputs_is_written,
    odd_arguments_are_refused,
)


def main() -> None:
    torch.set_num_threads(1)
    found: dict[str, str | None] = {}
    for check in CHECKS:
        try:
            check()
            found[check.__name__] = None
        except (Exception, pytest.fail.Exception):  # one failed check must not hide the others
            found[check.__name__] = traceback.format_exc()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
