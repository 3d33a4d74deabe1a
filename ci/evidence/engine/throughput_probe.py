"""Probe: the engine beside transformers' ways to run the same requests, as `runtime bench` does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evidence.engine.probe import Tell

from runtime.bench.report import summarise
from runtime.bench.setup import Setup
from runtime.bench.turns import Limits, Score, take_turns
from runtime.bench.workload import WORKLOADS
from runtime.model_config import load_model_config


def main(request: Mapping[str, Any], tell: Tell) -> None:
    """Run contender after contender.

    Args:
        request: `folder`, `dtype`, `threads`, `device`, `requests`, `cut` of outputs or None,
            `rounds` of the engine, `limits` and `engine` options.
        tell: `contenders`, whenever one of them has got further.
    """
    folder = Path(request["folder"])
    workload = WORKLOADS["uniform"](load_model_config(folder).vocab_size, 0)
    workload = workload.first(request["requests"]).cut(request["cut"])
    setup = Setup(
        folder,
        request["dtype"],
        request["threads"],
        workload.max_len,
        request["device"],
        request["engine"],
    )
    tell(
        requests=len(workload.prompts),
        prompt_tokens=workload.num_prompt_tokens,
        output_tokens=workload.num_output_tokens,
    )
    # What most may go wrong with comes last.
    names = ("engine", "hf-batch", "hf", "hf-continuous")
    once = dict.fromkeys(names[1:], 1)
    known: dict[str, Score] = {}

    def seen(name: str, score: Score) -> None:
        known[name] = score
        tell(contenders=summarise(workload, known))

    limits = Limits(**request["limits"], rounds=once)
    _, kv = take_turns(names, setup, workload, request["rounds"], limits, seen)
    tell(kv=kv)
