"""Model shapes divided over ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_cases import read

from autotune.errors import UsageError
from autotune.model_shape import Linear, load


def test_tensor_parallel_divides_columns_and_rows() -> None:
    part = load("llama-3.1-70b").tensor_parallel(4)
    assert (part.num_heads, part.num_kv_heads, part.group) == (16, 2, 8)
    assert part.linears() == (
        Linear("qkv", (64 + 16) * 128 // 4, 8192),
        Linear("o", 8192, 8192 // 4),
        Linear("gate_up", 57344 // 4, 8192),
        Linear("down", 8192, 28672 // 4),
    )
    assert part.vocab_size == 128256
    assert load("llama-3.1-70b").tensor_parallel(1) == load("llama-3.1-70b")


def test_tensor_parallel_repeats_kv_heads() -> None:
    part = load("llama-3.1-70b").tensor_parallel(16)
    assert (part.num_heads, part.num_kv_heads, part.group) == (4, 1, 4)
    assert part.linears()[0] == Linear("qkv", (4 + 2) * 128, 8192)


@pytest.mark.parametrize(
    ("name", "ranks", "message"),
    [
        ("qwen2.5-7b", 8, "qwen2.5-7b has heads 28, which 8 ranks do not divide"),
        ("llama-3.1-8b", 32 * 3, "has heads 32"),
        ("gemma-2-9b", 0, "tensor parallel size 0 must be at least 1"),
        ("gemma-2-9b", -1, "must be at least 1"),
    ],
)
def test_tensor_parallel_refuses(name: str, ranks: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(name).tensor_parallel(ranks)


def test_tensor_parallel_refuses_uneven_kv_heads_and_intermediate_size(tmp_path: Path) -> None:
    shape = read(tmp_path, hidden_size=6144, num_attention_heads=48, num_key_value_heads=8)
    with pytest.raises(UsageError, match="intermediate size 14336, which 3 ranks do not divide"):
        shape.tensor_parallel(3)
    shape = read(tmp_path, hidden_size=6144, num_attention_heads=48, intermediate_size=12288)
    with pytest.raises(UsageError, match=r"has 8 KV heads; .* a multiple of it, not 12"):
        shape.tensor_parallel(12)
