"""Which problems spaces are recorded and ideas raced on: Llama-3.1-8B's shapes."""

from __future__ import annotations

ATTENTION = "dtype=bf16,head_dim=128"

DECODE = tuple(
    {"num_seqs": num_seqs, "context_len": context_len}
    for num_seqs, context_len in ((1, 2048), (1, 32768), (32, 2048), (128, 512), (128, 4096))
)
PREFILL = tuple(
    {"num_seqs": num_seqs, "query_len": query_len, "context_len": context_len}
    for num_seqs, query_len, context_len in (
        (1, 512, 512), (1, 2048, 2048), (1, 512, 33280), (32, 16, 2048),
    )
)  # fmt: skip
ROWS = tuple({"m": m} for m in (1, 16, 64, 512, 4096))

SPACES = (
    ("paged_attention_decode", f"{ATTENTION},group=4,block_size=16", DECODE),
    ("paged_attention_prefill", f"{ATTENTION},group=4,block_size=16", PREFILL),
    ("fused_mlp", "part=gate_up,n=14336,k=4096", ROWS),
    ("dequant_gemm", "bits=4,group_size=128,zero_point=True,n=28672,k=4096", ROWS),
    ("dequant_gemm", "bits=8,group_size=128,zero_point=False,n=28672,k=4096", ROWS),
)
"""Kernel, exact axes, sizes: one recorded space each, in order of value."""
