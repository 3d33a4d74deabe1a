"""Regressions to plant in the templates, and a small tree to plant them in."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from autotune.gate.static import pinned_binaries
from autotune.paths import data_dir
from autotune.records import Selection
from autotune.results import ResultsStore

GPU = "rtx4090"
KERNELS = ("paged_attention_decode", "paged_attention_prefill", "fused_mlp", "dequant_gemm")
_STAGES = r"^NUM_STAGES = \{\{ num_stages \}\}"
_OPTIONS = r'"num_stages": NUM_STAGES,(\s+"options": MFMA_OPTIONS,)?'
_EVEN = r"^EVEN_K = .*"


@dataclass(frozen=True, slots=True)
class Plant:
    """One kind of edit that makes a kernel worse, and the fact that must give it away."""

    name: str
    fact: str
    edits: Mapping[str, tuple[tuple[str, str], ...]]
    """By kernel: patterns and replacements, for its template or the part that it includes."""
    wants: Callable[[Selection], bool]
    """Selections whose source the edit reaches."""

    def apply(self, templates: Path) -> None:
        for kernel, edits in self.edits.items():
            for pattern, replacement in edits:
                reached = 0
                for file in (f"{kernel}.py.jinja", "include/paged.jinja"):
                    path = templates / file
                    text, count = re.subn(pattern, replacement, path.read_text(), flags=re.M)
                    path.write_text(text)
                    reached += count
                assert reached, f"{self.name}: nothing to replace for {kernel}"


def _in_all(*edits: tuple[str, str]) -> dict[str, tuple[tuple[str, str], ...]]:
    return dict.fromkeys(KERNELS, edits)


def _uses_matrix_units(selection: Selection) -> bool:
    return selection.config.get("kind") != "gemv"


def _is_small(selection: Selection) -> bool:
    """Few rows of output: quick to compile for units that are not meant for it."""
    config = selection.config
    return _uses_matrix_units(selection) and config.get("block_m", config.get("block_q", 16)) <= 32


def _has_bulk_loop(selection: Selection) -> bool:
    return _uses_matrix_units(selection) and selection.config.get("tail", "split_loop") != "masked"


PLANTS = (
    Plant(
        "no prefetch", "loop.async_copy", _in_all((_STAGES, "NUM_STAGES = 1")), _uses_matrix_units
    ),
    Plant(
        "more stages than fit",
        "shared_bytes",
        _in_all((_STAGES, "NUM_STAGES = 16")),
        _uses_matrix_units,
    ),
    Plant(
        "a spill",
        "stack_bytes",
        _in_all((_OPTIONS, '"num_stages": NUM_STAGES, "options": {"maxnreg": 32},')),
        _uses_matrix_units,
    ),
    Plant(
        "fp32 instead of matrix units",
        "mma",
        _in_all(
            (r"tl\.dot\(([^,]+), ([^,]+), ", r"tl.dot((\1).to(_WIDE), (\2).to(_WIDE), "),
            ("_WIDE", "tl.float32"),
            ("input_precision=DOT_PRECISION", 'input_precision="ieee"'),
        ),
        _is_small,
    ),
    Plant(
        "a mask in the hot loop",
        "loop.integer",
        {
            "paged_attention_decode": (("stride_token, False,", "stride_token, True,"),),
            "paged_attention_prefill": (('bulk_end", "False"', 'bulk_end", "True"'),),
            "fused_mlp": ((_EVEN, "EVEN_K = tl.constexpr(False)"),),
            "dequant_gemm": ((_EVEN, "EVEN_K = tl.constexpr(False)"),),
        },
        _has_bulk_loop,
    ),
)


def small_tree(folder: Path, wants: Callable[[Selection], bool]) -> Path:
    """A checkout with our templates and one selection of each kernel."""
    shutil.copytree(data_dir("templates"), folder / "templates")
    for kernel in KERNELS:
        store = ResultsStore(data_dir("results"))
        small = next(
            dataclasses.replace(cell, selections=(binary.selection,))
            for cell in store.read(GPU, kernel)
            for binary in pinned_binaries(cell)
            if wants(binary.selection)
        )
        ResultsStore(folder / "results").merge(GPU, kernel, [small])
    return folder
