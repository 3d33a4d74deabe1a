"""Peers on a CPU: right by the kernels' own reference, timed by a stopwatch that only launches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from autotune.errors import CandidateError, UnknownChoiceError, UsageError
from autotune.kernels import load_kernel
from autotune.peers import PEERS, load_peer, peers_of
from autotune.peers.refusal import PeerError
from autotune.problem import Problem
from autotune.testbed import Testbed

ATTENTION = "dtype=fp32,head_dim=64,group=2,block_size=16,num_kv_heads=2"
DECODE = f"{ATTENTION},num_seqs=3,context_len=70"
PREFILL = f"{ATTENTION},num_seqs=2,query_len=9"
W4 = "dtype=bf16,bits=4,group_size=32,n=64,k=256,m=5"

ON_THE_CPU = [
    ("paged_attention_decode", "sdpa", DECODE),
    ("paged_attention_decode", "sdpa_gather", DECODE),
    ("paged_attention_prefill", "sdpa", f"{PREFILL},context_len=9"),
    ("paged_attention_prefill", "sdpa", f"{PREFILL},context_len=40"),
    ("fused_mlp", "cublas", "dtype=fp32,n=48,k=64,m=5"),
    ("fused_mlp", "cublas", "dtype=fp32,activation=gelu_tanh,n=48,k=64,m=5"),
    ("fused_mlp", "cublas", "dtype=fp32,part=down,activation=none,residual=true,n=48,k=64,m=5"),
    ("dequant_gemm", "cublas", W4),
    ("dequant_gemm", "cublas", "dtype=fp32,bits=8,group_size=0,zero_point=false,n=40,k=96,m=3"),
    ("dequant_gemm", "int4pack", W4),
    ("dequant_gemm", "int4pack", f"{W4},zero_point=false"),
]


class Launcher:
    """Takes samples of no length."""

    def prepare(self, launches: list[Callable[[], Any]]) -> Callable[[], float]:
        def sample() -> float:
            for launch in launches:
                launch()
            return 1.0

        return sample


def bed_of(kernel: str, axes: str) -> tuple[Testbed, Problem]:
    spec = load_kernel(kernel)
    problem = spec.problem_type.parse(axes)
    return Testbed(spec, problem, "cpu", Launcher(), sets=2), problem


@pytest.mark.parametrize(("kernel", "peer", "axes"), ON_THE_CPU)
def test_a_peer_is_right_on_its_own_and_under_the_clock(kernel: str, peer: str, axes: str) -> None:
    bed, problem = bed_of(kernel, axes)
    sample = bed.stopwatch(partial(load_peer(f"{kernel}/{peer}"), problem), slack=4.0)
    assert sample() == 1.0


def test_a_peer_of_the_user_is_checked_too(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from torch.nn.functional import linear, silu\n"
        "def right(problem, inputs):\n"
        "    gate, up = inputs['weight'].chunk(2)\n"
        "    return lambda: silu(linear(inputs['x'], gate)) * linear(inputs['x'], up)\n"
        "def wrong(problem, inputs):\n"
        "    return lambda: linear(inputs['x'], inputs['weight'].chunk(2)[0])\n"
        "def stale(problem, inputs):\n"
        "    once = right(problem, inputs)()\n"
        "    return lambda: once\n"
    )
    bed, problem = bed_of("fused_mlp", "dtype=fp32,n=48,k=64,m=5")
    bed.stopwatch(partial(load_peer(f"{file}:right"), problem))
    with pytest.raises(CandidateError, match="wrong at this size: relative"):
        bed.stopwatch(partial(load_peer(f"{file}:wrong"), problem))
    with pytest.raises(CandidateError, match="as it is timed: not finite"):
        bed.stopwatch(partial(load_peer(f"{file}:stale"), problem))
    with pytest.raises(UsageError, match="no function 'missing'"):
        load_peer(f"{file}:missing")
    with pytest.raises(UsageError, match="no such Python file"):
        load_peer(f"{tmp_path / 'none.py'}:right")


def test_what_a_peer_does_not_serve_it_refuses() -> None:
    bed, problem = bed_of("dequant_gemm", "dtype=fp16,bits=4,group_size=32,n=64,k=256,m=5")
    with pytest.raises(PeerError, match="bf16"):
        bed.stopwatch(partial(load_peer("dequant_gemm/int4pack"), problem))


def test_every_row_of_the_table_is_a_function() -> None:
    for kernel in PEERS:
        for name in peers_of(kernel):
            assert callable(load_peer(name))
    with pytest.raises(UnknownChoiceError, match="sdpa_flash"):
        load_peer("paged_attention_decode/sdpa_flush")
