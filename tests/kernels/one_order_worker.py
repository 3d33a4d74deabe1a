"""Rows of a kernel alone and in batches, to the bit, in Triton's interpreter, for `test_one_order`.

Prints a JSON object: name of each case → names of the batches in which a row differs. Started with
TRITON_INTERPRET set; its argument is a folder for rendered kernels.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from autotune.arch import lookup
from autotune.config import Config
from autotune.kernels import load_kernel
from autotune.kernels.paged_cache import make_paged_cache
from autotune.paths import templates_dir
from autotune.problem import Problem
from autotune.render import TemplateFolder, import_file

ARCH = lookup("a100")
BATCHES = (2, 5, 17)
CONTEXTS = (110, 1, 50, 33, 32, 40, 16, 12, 3, 5, 8, 2, 31, 9, 17, 8, 4)
QUERIES = 20
"""The first is the one that is looked at."""
DECODE = {"dtype": "fp32", "head_dim": 16, "group": 2, "block_size": 16, "num_kv_heads": 1}
GEMM = {"dtype": "fp32", "n": 24, "k": 136}


def load(problem: Problem, config: Config) -> ModuleType:
    """Render and import."""
    rendered = TemplateFolder(templates_dir()).render(load_kernel(problem.kernel), problem, config)
    return import_file(rendered.write(Path(sys.argv[1])))


def choose(problem: Problem, wanted: Mapping[str, Any]) -> Config:
    """The default configuration with some knobs at other values."""
    spec = load_kernel(problem.kernel)
    config = spec.default_config(problem, ARCH)
    return spec.space(problem, ARCH).config(**{**config, **wanted})


def tensors(count: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Queries and cache of `count` sequences; those of the first are the same in all batches."""
    generator = torch.Generator().manual_seed(3)
    query = torch.randn(
        len(CONTEXTS), QUERIES, 2, 16, generator=generator
    )  # [seq, token, head, dim]
    lens = list(CONTEXTS)
    cache = make_paged_cache(lens, 16, 1, 16, "fp32", 7, "cpu")
    return query, {
        "k_cache": cache.k,
        "v_cache": cache.v,
        "block_tables": cache.block_tables[:count].contiguous(),
        "context_lens": torch.tensor(lens[:count], dtype=torch.int32),
    }


def decode(module: ModuleType, count: int) -> torch.Tensor:
    """The first sequence's output among `count`."""
    query, cache = tensors(count)
    q = query[:count, 0].contiguous()
    out = torch.empty_like(q)
    module.launch(out=out, q=q, scale=0.25, **cache)
    return out[0]


def prefill(module: ModuleType, count: int, chunks: tuple[int, ...] = (QUERIES,)) -> torch.Tensor:
    """Output of the first sequence's last tokens, in chunks, each among `count`."""
    query, cache = tensors(count)
    done = 0
    found = []
    for chunk in chunks:
        mine = query[0, done : done + chunk]
        done += chunk
        others = [query[i, : min(9, CONTEXTS[i])] for i in range(1, count)]
        first = count // 2  # in the middle of the batch
        parts = [*others[:first], mine, *others[first:]]
        order = [*range(1, first + 1), 0, *range(first + 1, count)]
        lens = cache["context_lens"].clone()
        lens[0] = CONTEXTS[0] - QUERIES + done
        q = torch.cat(parts)
        out = torch.empty_like(q)
        starts = torch.tensor([0, *itertools.accumulate(map(len, parts))], dtype=torch.int32)
        module.launch(
            out=out,
            q=q,
            scale=0.25,
            k_cache=cache["k_cache"],
            v_cache=cache["v_cache"],
            block_tables=cache["block_tables"][order].contiguous(),
            cu_query_lens=starts,
            context_lens=lens[order].contiguous(),
        )
        found.append(out[starts[first] : starts[first + 1]])
    return torch.cat(found)


def linear(module: ModuleType, problem: Problem, rows: int) -> torch.Tensor:
    """A row's product among `rows`, last of them."""
    spec = load_kernel(problem.kernel)
    inputs = spec.make_inputs(problem.at(m=BATCHES[-1]), 5, "cpu")
    x = inputs["x"].roll(-1, 0)[-rows:].contiguous()
    inputs |= {"x": x, "out": torch.empty_like(inputs["out"][:rows])}
    return spec.run(module, problem.at(m=rows), inputs)[-1]


def attention_cases() -> dict[str, list[str]]:
    """Decode with and without ranges; prefill, whole and in chunks."""
    differing: dict[str, list[str]] = {}
    kernel = load_kernel("paged_attention_decode").problem_type
    for window in (0, 40):
        problem = kernel.from_axes(DECODE | {"window": window})
        for splits in (1, 4)[window > 0 :]:
            config = choose(
                problem, {"variant": "split" if splits > 1 else "unsplit", "num_splits": splits}
            )
            module = load(problem, config)
            alone = decode(module, 1)
            differing[f"decode splits={splits} window={window}"] = [
                f"{count}" for count in BATCHES if not torch.equal(decode(module, count), alone)
            ]
        kind = load_kernel("paged_attention_prefill").problem_type
        asked = kind.from_axes(DECODE | {"window": window, "query_len": QUERIES})
        module = load(asked, choose(asked, {"block_m": 32}))
        alone = prefill(module, 1)
        differing[f"prefill window={window}"] = [
            f"{count} {chunks}"
            for count, chunks in ((17, (QUERIES,)), (2, (1, 19)), (5, (13, 7)))
            if not torch.equal(prefill(module, count, chunks), alone)
        ]
    return differing


def gemm_cases() -> dict[str, list[str]]:
    """Products by tiles of 16 and of 64 rows, that agree on the order of sums."""
    differing: dict[str, list[str]] = {}
    mlp, dequant = (load_kernel(name).problem_type for name in ("fused_mlp", "dequant_gemm"))
    down = {"part": "down", "activation": "none"}
    for name, problem, wanted in (
        ("gate up", mlp.from_axes(GEMM), {}),
        ("down", mlp.from_axes(GEMM | down), {"variant": "plain", "num_splits": 1}),
        ("down split", mlp.from_axes(GEMM | down), {"variant": "split_k", "num_splits": 4}),
        ("dequant sums", dequant.from_axes(GEMM), {}),
        ("dequant split", dequant.from_axes(GEMM), {"kind": "split_k", "split_k": 4}),
    ):
        spec = load_kernel(problem.kernel)
        few = choose(problem.at(m=1 if name == "dequant sums" else 16), wanted)
        many = few if few["block_m"] == 1 else few.replace(block_m=32, num_warps=2)
        orders = {spec.reduction_order(problem, config, ARCH) for config in (few, many)}
        assert len(orders) == 1
        alone = linear(load(problem, few), problem, 1)
        module = load(problem, many)
        differing[name] = [
            f"{rows}" for rows in BATCHES if not torch.equal(linear(module, problem, rows), alone)
        ]
    return differing


def without() -> dict[str, list[str]]:
    """What the defaults of each batch size give, which do not agree on the order of sums."""
    differing: dict[str, list[str]] = {}
    spec = load_kernel("paged_attention_decode")
    problem = spec.problem_type.from_axes(DECODE | {"context_len": 1024})
    few, many = (spec.default_config(problem.at(num_seqs=n), ARCH) for n in (1, 128))
    assert few["num_splits"] != many["num_splits"]
    alone, together = decode(load(problem, few), 1), decode(load(problem, many), 2)
    differing["decode"] = [] if torch.equal(alone, together) else ["2"]
    spec = load_kernel("dequant_gemm")
    problem = spec.problem_type.from_axes(GEMM)
    modules = [load(problem, spec.default_config(problem.at(m=m), ARCH)) for m in (1, 17)]
    rows = [linear(module, problem, m) for module, m in zip(modules, (1, 17), strict=True)]
    differing["dequant"] = [] if torch.equal(*rows) else ["17"]
    return differing


def multiply(a: np.typing.NDArray[Any], b: np.typing.NDArray[Any], **_: Any) -> Any:
    """[m, k] x [k, n], each number summed by itself, as matrix instructions do.

    The interpreter's products are those of a BLAS, where a row's sum depends on its place in the
    tile.
    """
    return np.einsum("mk,kn->mn", a, b)


if __name__ == "__main__":
    torch.set_num_threads(1)
    np.matmul = multiply  # type: ignore[assignment]
    print(json.dumps({"with": attention_cases() | gemm_cases(), "without": without()}))
