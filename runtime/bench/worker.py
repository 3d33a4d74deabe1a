"""A process that runs contenders, so that their memory is their own: `python -m`, JSON lines.

It reads one setup, then one request per line, and answers each with one line. What libraries print
goes to standard error.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import resource
import sys
import time
from typing import Any, TextIO

_KIB = 1024


def main() -> None:
    """Serve requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    first = json.loads(sys.stdin.readline())
    from runtime import interpreter
    from runtime.bench.setup import Setup

    setup = Setup.from_json(first["setup"])
    if setup.engine.get("ops") == "interpreter":
        interpreter.choose()
    import torch
    from transformers.utils import logging

    from runtime.bench.contenders import CONTENDERS, EngineContender, Run
    from runtime.bench.continuous import Continuous
    from runtime.bench.hf_model import HfModel
    from runtime.bench.kv_facts import measure_kv
    from runtime.bench.workload import Workload

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    torch.set_num_threads(setup.threads)
    model = HfModel(setup)
    contenders: dict[str, Run] = {n: CONTENDERS[n](setup, model) for n in first["contenders"]}
    _answer(answers, {"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        workload = Workload.from_json(request["workload"])
        run = contenders[request["contender"]]
        if request["what"] == "kv":
            assert isinstance(run, EngineContender)
            _answer(answers, measure_kv(setup, run, workload))
            continue
        if isinstance(run, Continuous):
            run.limit_s = request["limit_s"]
        is_gpu = setup.device != "cpu"
        if is_gpu:
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        cpu_started = time.process_time()
        try:
            served = run(workload, request["batch_size"])
        except torch.OutOfMemoryError as error:
            _answer(answers, {"out_of_memory": str(error)[:300]})
            continue
        answer: dict[str, Any] = {
            **dataclasses.asdict(served),
            "cpu_seconds": time.process_time() - cpu_started,
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB,
            "peak_device_bytes": torch.cuda.max_memory_allocated() if is_gpu else None,
        }
        if isinstance(run, Continuous):
            answer["notes"] = {
                "settings": run.settings,
                "tried_tokens_per_s": run.tried,
                "attention": run.attention,
            }
        _answer(answers, answer)


def _answer(stream: TextIO, values: dict[str, Any]) -> None:
    print(json.dumps(values), file=stream, flush=True)


if __name__ == "__main__":
    main()
