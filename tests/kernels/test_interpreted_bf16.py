"""bf16 in Triton's interpreter: what torch calculates, to the bit."""

from __future__ import annotations

import json
import subprocess
import sys

import bf16_worker
import pytest
import torch

from autotune.paths import child_environment

BF16 = torch.bfloat16
ODD = (0.0, -0.0, 1e-39, -3.4e38, torch.inf, -torch.inf, torch.nan, 1.00390625, 1.01171875)
"""Signs of zero, a subnormal, what overflows, and halves between two numbers of bf16."""


@pytest.fixture(scope="module")
def given() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    x, y, wide = torch.randn(3, 256, generator=draw)
    wide[: len(ODD)] = torch.tensor(ODD)
    half = torch.randn(256, generator=draw).half()
    whole = torch.randint(-(2**20), 2**20, (256,), generator=draw, dtype=torch.int32)
    return {"x": x.to(BF16), "y": y.to(BF16), "wide": wide, "half": half, "whole": whole}


@pytest.fixture(scope="module")
def found(
    given: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ten results of 256 numbers, the sums, and what was there before each addition."""
    folder = tmp_path_factory.mktemp("bf16")
    torch.save(given, folder / "given.pt")
    done = subprocess.run(
        [sys.executable, bf16_worker.__file__, str(folder)],
        env=child_environment(TRITON_INTERPRET="1"),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    rows, sums, old = json.loads(done.stdout)
    return torch.tensor(rows), torch.tensor(sums), torch.tensor(old)


def test_operations(
    given: dict[str, torch.Tensor], found: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    x, y = given["x"], given["y"]
    product = (x.view(16, 16).double() @ y.view(16, 16).double().T).float()
    wanted = {
        "sum": x + y,
        "product": x * y,
        "choice": torch.where(x > y, x, y - 1.5),
        "from fp32": given["wide"].to(BF16),
        "from fp16": given["half"].to(BF16),
        "from int32": given["whole"].to(BF16),
        "absolute": x.abs(),
        "matrix product": product.to(BF16).flatten(),
        "constant": torch.full((256,), 0.1, dtype=BF16),
        "by way of fp16": x.half().to(BF16),
    }
    for (name, expected), row in zip(wanted.items(), found[0], strict=True):
        assert torch.equal(row.nan_to_num(), expected.float().nan_to_num()), name
        assert torch.equal(row.isnan(), expected.isnan()), name
        numbers = ~row.isnan()  # a NaN's sign means nothing
        assert torch.equal(row[numbers].signbit(), expected[numbers].signbit()), name


def test_atomic_additions_to_the_same_number(
    given: dict[str, torch.Tensor], found: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    """Each number gets two, the second after the first; the one that is masked is left out."""
    first, second = given["y"].view(128, 2).unbind(1)
    one = torch.ones(128, dtype=BF16)
    wanted = one + first + second
    wanted[1] = one[1] + first[1]
    assert torch.equal(found[1], wanted.float())
    old = torch.stack((one, one + first), 1)
    old[1, 1] = 0
    assert torch.equal(found[2], old.flatten().float())
