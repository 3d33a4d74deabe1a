"""Engines whose kernels run in Triton's interpreter, for tests in another process.

Reads one JSON object a line and answers with one; started with TRITON_INTERPRET set.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import torch

from runtime.check.engine_bench import run_all
from runtime.config import EngineConfig
from runtime.engine import LLMEngine
from runtime.explain import explain
from runtime.preemption import PreemptionMode
from runtime.sampling_params import SamplingParams


def answer(order: Mapping[str, Any]) -> dict[str, Any]:
    """Run prompts greedily on an engine of the options; tokens and what the engine runs on."""
    options = dict(order["options"])
    if "preemption_mode" in options:
        options["preemption_mode"] = PreemptionMode(options["preemption_mode"])
    engine = LLMEngine(
        EngineConfig(order["folder"], ops="interpreter", skip_tokenizer=True, **options)
    )
    params = SamplingParams(temperature=0, max_tokens=order["max_tokens"])
    outputs = run_all(engine, order["prompts"], [params] * len(order["prompts"]))
    return {
        "tokens": [list(output.outputs[0].token_ids) for output in outputs],
        "preemptions": sum(engine.scheduler.stats().num_preemptions.values()),
        "explanation": explain(engine.plan).as_json(),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
