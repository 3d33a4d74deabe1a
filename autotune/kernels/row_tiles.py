"""Knobs of kernels that take rows one by one: how many at once, whole or in parts."""

from __future__ import annotations

import math

from autotune.arch import GpuArch
from autotune.config import Config
from autotune.kernels.dtypes import next_power_of_2
from autotune.knob import Constraint, Knob
from autotune.space import SearchSpace

MOST_COLUMNS = 16_384
"""Of a row that a program holds in registers as a whole."""
_FEWEST_COLUMNS = 1024
"""Of a part of a row."""
_PER_THREAD = 64
"""Most elements that a thread holds."""

KNOBS = (
    Knob("block_rows", (1, 2, 4, 8, 16), "rows per program"),
    Knob(
        "block_cols",
        (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384),
        "columns at a time: a whole row, or a part of one that is read again",
    ),
    Knob("num_warps", (1, 2, 4, 8, 16), "warps per program"),
)


def row_space(columns: int, arch: GpuArch) -> SearchSpace:
    """Rows per program, columns at a time, warps; for rows of that many columns."""
    padded = max(16, next_power_of_2(columns))

    def fits_a_row(block_cols: int) -> bool:
        return block_cols == padded or _FEWEST_COLUMNS <= block_cols < padded

    return SearchSpace(
        KNOBS,
        (
            Constraint("rows are whole, or in parts of at least 1024", ("block_cols",), fits_a_row),
            Constraint(
                "several rows are whole ones",
                ("block_rows", "block_cols"),
                lambda rows, cols: rows == 1 or cols == padded,
            ),
            Constraint(
                "a thread holds 1 to 64 elements",
                ("block_rows", "block_cols", "num_warps"),
                lambda rows, cols, warps: (
                    1 <= rows * cols / (warps * arch.warp_size) <= _PER_THREAD
                ),
            ),
        ),
    )


def default_rows(columns: int, arch: GpuArch) -> Config:
    """A row per program, several if they are short; 16 elements per thread, 32 of long rows."""
    padded = max(16, next_power_of_2(columns))
    block_cols = padded if padded <= MOST_COLUMNS else MOST_COLUMNS // 2
    block_rows = max(1, min(16, 1024 // block_cols))
    warps = min(16, max(1, block_rows * block_cols // (16 * arch.warp_size)))
    wanted = {"block_rows": block_rows, "block_cols": block_cols, "num_warps": warps}
    return row_space(columns, arch).closest(wanted)


def is_whole(columns: int, config: Config) -> bool:
    """Whether a program holds whole rows."""
    return config.number("block_cols") >= columns


def row_steps(columns: int, config: Config, passes: int) -> int:
    """Parts of a row that a program reads, one after the other; whole rows are read once."""
    if is_whole(columns, config):
        return 1
    return passes * math.ceil(columns / config.number("block_cols"))
