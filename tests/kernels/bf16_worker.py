"""A kernel of bf16 operations in the interpreter; prints its results, as fp32, in JSON.

Started with TRITON_INTERPRET set. Takes a folder, a file of tensors in it, and how often to run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from autotune.render import import_file

KERNEL = """
import triton
import triton.language as tl


@triton.jit
def operate(x_ptr, y_ptr, wide_ptr, half_ptr, whole_ptr, out_ptr, sums_ptr, old_ptr):
    each = tl.arange(0, 256)
    x = tl.load(x_ptr + each)
    y = tl.load(y_ptr + each)
    wide = tl.load(wide_ptr + each)
    tl.store(out_ptr + each, x + y)
    tl.store(out_ptr + 256 + each, x * y)
    tl.store(out_ptr + 512 + each, tl.where(x > y, x, y - 1.5))
    tl.store(out_ptr + 768 + each, wide.to(tl.bfloat16))
    tl.store(out_ptr + 1024 + each, tl.load(half_ptr + each).to(tl.bfloat16))
    tl.store(out_ptr + 1280 + each, tl.load(whole_ptr + each).to(tl.bfloat16))
    tl.store(out_ptr + 1536 + each, tl.abs(x))
    tile = tl.reshape(x, (16, 16))
    product = tl.dot(tile, tl.trans(tl.reshape(y, (16, 16))))
    tl.store(out_ptr + 1792 + each, tl.reshape(product, (256,)).to(tl.bfloat16))
    tl.store(out_ptr + 2048 + each, tl.full((256,), 0.1, tl.bfloat16))
    tl.store(out_ptr + 2304 + each, x.to(tl.float16))
    old = tl.atomic_add(sums_ptr + each // 2, y, mask=each != 3, sem="relaxed")
    tl.store(old_ptr + each, old)
"""


def main() -> None:
    folder = Path(sys.argv[1])
    path = folder / "operate.py"
    path.write_text(KERNEL)
    given = torch.load(folder / "given.pt", weights_only=True)
    out = torch.full((2560,), torch.nan, dtype=torch.bfloat16)
    sums, old = torch.ones(128, dtype=torch.bfloat16), torch.zeros(256, dtype=torch.bfloat16)
    import_file(path).operate[(1,)](
        given["x"], given["y"], given["wide"], given["half"], given["whole"], out, sums, old
    )
    print(json.dumps([tensor.float().tolist() for tensor in (out.view(10, 256), sums, old)]))


if __name__ == "__main__":
    main()
