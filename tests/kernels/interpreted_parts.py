"""Runs parts of a rendered attention kernel alone, and kernels far out, in the interpreter.

Started with TRITON_INTERPRET set. Takes a JSON list: files rendered with `KERNELS` appended, and
what to call these with; and a folder for files. Prints JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from far_rows import differing
from far_tiles import wrong

from autotune.interpreted import BindOncePerLaunch
from autotune.render import import_file

KERNELS = """

@triton.jit
def offsets_of(out_ptr, table_ptr, start, end, stride_page, stride_token):
    page_ids = _load_page_ids(table_ptr, start, end)
    offsets = _token_offsets(page_ids, start, stride_page, stride_token)
    tl.store(out_ptr + tl.arange(0, TILE), offsets)


@triton.jit
def widened(out_ptr, codes_ptr, DTYPE: tl.constexpr):
    each = tl.arange(0, 256)
    tl.store(out_ptr + each, _widen(tl.load(codes_ptr + each), DTYPE).to(tl.float32))
"""


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Offsets of one tile, and all 256 codes in fp16 and fp32."""
    import triton.language as tl
    from triton.runtime import interpreter

    module = import_file(Path(asked["path"]))
    assert isinstance(interpreter._patch_lang, BindOncePerLaunch)
    offsets = torch.zeros(module.TILE.value, dtype=torch.int64)
    table = torch.tensor(asked["table"], dtype=torch.int32)
    module.offsets_of[(1,)](
        offsets, table, asked["start"], asked["end"], asked["stride_page"], asked["stride_token"]
    )
    codes = torch.arange(256, dtype=torch.int32).to(torch.uint8)
    if asked["cast"]:
        codes = codes.view(torch.float8_e4m3fn)
    numbers = []
    for dtype in (tl.float16, tl.float32):
        out = torch.empty(256)
        module.widened[(1,)](out, codes, DTYPE=dtype)
        numbers.append(out.tolist())
    return {"offsets": offsets.tolist(), "numbers": numbers}


if __name__ == "__main__":
    torch.set_num_threads(1)
    parts = [answer(asked) for asked in json.loads(sys.argv[1])]
    folder = Path(sys.argv[2])
    print(json.dumps({"parts": parts, "differing": differing(folder), "wrong": wrong(folder)}))
