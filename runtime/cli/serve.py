"""`runtime serve`."""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path

from runtime.cli.config_file import expand_config
from runtime.cli.engine_options import add_engine_arguments, engine_config, prepare_process
from runtime.cli.explanation import add_explain_arguments, check_gpu, print_explanation
from runtime.errors import InvalidParameterError
from runtime.scheduler_config import SchedulingPolicy

EXAMPLES = """examples:
  runtime serve path/to/model
  runtime serve path/to/model --port 9000 --served-model-name tiny --max-num-seqs 16
  runtime serve path/to/model --host 0.0.0.0 --api-key SECRET      or: PAGETUNE_API_KEY=SECRET
  runtime serve --config server.yaml                               model: path/to/model, port: 9000

then:
  curl http://127.0.0.1:8000/v1/completions -H 'content-type: application/json' \\
    -d '{"prompt": "Once upon a time", "max_tokens": 20}'

exit code: 0 after SIGTERM, 130 after Ctrl-C (twice: at once), 1 the engine died, 2 usage"""

_GPU_SHARE = 0.92
"""Of a GPU's memory, which a server has to itself; as in vLLM."""
_QUEUE_PER_SEAT = 8
"""Requests that may wait, per sequence that can run."""


def expand_words(words: list[str]) -> list[str]:
    """Put the options of a --config file before those of the command line."""
    return expand_config(words)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("server")
    group.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1: this machine only")
    group.add_argument("--port", type=int, default=8000, help="default 8000; 0: any free one")
    group.add_argument(
        "--served-model-name", nargs="+", metavar="NAME", help="default: MODEL as it is given"
    )
    group.add_argument(
        "--api-key", nargs="+", default=[], metavar="KEY", help="clients must send one of these"
    )
    group.add_argument(
        "--max-num-queued-reqs",
        type=int,
        metavar="N",
        help=f"requests that may wait (default {_QUEUE_PER_SEAT} x --max-num-seqs); more get 503",
    )
    group.add_argument(
        "--max-num-queued-tokens", type=int, metavar="N", help="prompt tokens that may wait"
    )
    group.add_argument(
        "--shutdown-timeout",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="for running requests to finish after SIGTERM (default 0: they are aborted)",
    )
    group.add_argument(
        "--stream-stall-timeout",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="a client that leaves a stream unread for so long loses it (default 60)",
    )
    group.add_argument(
        "--scheduling-policy",
        choices=[policy.value for policy in SchedulingPolicy],
        default=SchedulingPolicy.FCFS.value,
    )
    group.add_argument(
        "--long-prefill-token-threshold",
        type=int,
        metavar="N",
        help="most prompt tokens of one request in a step (default: half of a step)",
    )
    group.add_argument("--chat-template", type=Path, metavar="FILE", help="in place of the model's")
    group.add_argument(
        "--generation-config",
        choices=("auto", "vllm"),
        default="auto",
        help="auto: sampling defaults from the model's folder; vllm: none",
    )
    group.add_argument("--skip-tokenizer-init", action="store_true", help="token ids only")
    group.add_argument("--metrics-prefix", default="pagetune", help="vllm: for stock dashboards")
    group.add_argument("--log-requests", action="store_true", help="a line for every request")
    group.add_argument(
        "--config", type=Path, metavar="FILE.yaml", help="options by name; flags come before it"
    )
    parser.add_argument("--json", action="store_true", help="with --explain: print JSON")
    add_explain_arguments(parser)
    add_engine_arguments(parser, _GPU_SHARE)


def handle(options: argparse.Namespace) -> int:
    """Serve until told to end."""
    prepare_process(options.ops)
    check_gpu(options)
    # The web stack is loaded only now, after every word has been checked.
    from runtime.server.config import KEY_VARIABLE, ServerConfig
    from runtime.server.serve import serve

    keys = [*options.api_key, *filter(None, [os.environ.get(KEY_VARIABLE)])]
    queue_len = options.max_num_queued_reqs
    if queue_len is None:
        queue_len = _QUEUE_PER_SEAT * options.max_num_seqs
    elif queue_len < 1:
        raise InvalidParameterError("max_num_queued_reqs", queue_len, "at least 1")
    engine = dataclasses.replace(
        engine_config(options, _GPU_SHARE),
        max_queue_len=queue_len,
        policy=SchedulingPolicy(options.scheduling_policy),
        skip_tokenizer=options.skip_tokenizer_init,
        long_prefill_token_threshold=_prefill_threshold(options),
    )
    if options.explain:
        return print_explanation(engine, options.gpu, as_json=options.json)
    config = ServerConfig(
        engine,
        served_model_names=tuple(options.served_model_name or [str(options.model)]),
        host=options.host,
        port=options.port,
        api_keys=tuple(keys),
        max_num_queued_tokens=options.max_num_queued_tokens,
        shutdown_timeout_s=options.shutdown_timeout,
        stall_timeout_s=options.stream_stall_timeout,
        metrics_prefix=options.metrics_prefix,
        chat_template=options.chat_template,
        use_generation_config=options.generation_config == "auto",
        log_requests=options.log_requests,
    )
    return serve(config)


def _prefill_threshold(options: argparse.Namespace) -> int:
    """Half of a step, so that a short prompt need not wait for a long one's end."""
    given: int | None = options.long_prefill_token_threshold
    return max(1, options.max_num_batched_tokens // 2) if given is None else given
