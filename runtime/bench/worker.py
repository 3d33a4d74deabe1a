"""A process that runs one contender, so that its memory is its own: `python -m`, JSON lines.

It reads one setup, then one request per line, and answers each with one line. What libraries print
goes to standard error.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any, TextIO

_KIB = 1024


def main() -> None:
    """Serve requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    setup = json.loads(sys.stdin.readline())
    import torch
    from transformers.utils import logging

    from runtime.bench.contenders import CONTENDERS, prepare_engine
    from runtime.bench.kv_facts import measure_kv
    from runtime.bench.workload import Workload

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    torch.set_num_threads(setup["threads"])
    folder = Path(setup["folder"])
    dtype, kv_dtype = setup["dtype"], setup["kv_cache_dtype"]
    if setup["contender"] == "engine":
        run = prepare_engine(folder, dtype, setup["max_len"], kv_dtype, setup["quantization"])
    else:
        run = CONTENDERS[setup["contender"]](folder, dtype, setup["max_len"])
    _answer(answers, {"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        workload = Workload.from_json(request["workload"])
        if request["what"] == "kv":
            _answer(answers, measure_kv(folder, dtype, workload, kv_dtype))
            continue
        started, cpu_started = time.perf_counter(), time.process_time()
        run(workload, request["batch_size"])
        _answer(
            answers,
            {
                "seconds": time.perf_counter() - started,
                "cpu_seconds": time.process_time() - cpu_started,
                "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB,
            },
        )


def _answer(stream: TextIO, values: dict[str, Any]) -> None:
    print(json.dumps(values), file=stream, flush=True)


if __name__ == "__main__":
    main()
