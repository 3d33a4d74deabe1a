"""`runtime bench serve`."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.errors import InvalidParameterError

if TYPE_CHECKING:
    from runtime.bench.serve.settings import Dataset, LoadSettings

EXAMPLES = """examples:
  runtime bench serve --num-prompts 200 --random-input-len 128 --random-output-len 64
  runtime bench serve --port 9000 --request-rate 4 --goodput ttft:200 tpot:50
  runtime bench serve --dataset-name sharegpt --dataset-path sharegpt.json --max-concurrency 32
  runtime bench serve --backend openai-chat --dataset-name custom --dataset-path prompts.jsonl

names of options and results are those of `vllm bench serve`. Without --tokenizer, prompts are made
with the server's own, over /tokenize and /detokenize. A key is taken from PAGETUNE_API_KEY, or from
OPENAI_API_KEY. (For a model in a folder called "serve": runtime bench ./serve)

exit code: 0; 1 if no request succeeded; 2 usage; 130 after Ctrl-C, with figures of what was done"""

_KEY_VARIABLES = ("PAGETUNE_API_KEY", "OPENAI_API_KEY")
_ENDPOINTS = {
    "openai": "/v1/completions",
    "vllm": "/v1/completions",
    "openai-chat": "/v1/chat/completions",
}
_SAMPLING = {
    "temperature": float,
    "top-p": float,
    "top-k": int,
    "min-p": float,
    "frequency-penalty": float,
    "presence-penalty": float,
    "repetition-penalty": float,
}
_INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("server")
    group.add_argument("--backend", choices=tuple(_ENDPOINTS), default="openai")
    group.add_argument("--base-url", metavar="URL", help="in place of --host and --port")
    group.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1")
    group.add_argument("--port", type=int, default=8000, help="default 8000")
    group.add_argument("--endpoint", metavar="PATH", help="default: the backend's")
    group.add_argument("--header", nargs="*", type=_pair, default=[], metavar="KEY=VALUE")
    group.add_argument("--insecure", action="store_true", help="take any TLS certificate")
    group.add_argument("--model", help="default: the first that the server lists")
    group.add_argument("--tokenizer", type=Path, metavar="DIR", help="default: the server's")
    group.add_argument("--ready-check-timeout-sec", type=float, default=0.0, metavar="SECONDS")
    _add_data(parser.add_argument_group("requests"))
    group = parser.add_argument_group("load")
    group.add_argument(
        "--request-rate", type=float, default=math.inf, help="per second (default inf: all at once)"
    )
    group.add_argument(
        "--burstiness", type=float, default=1.0, help="1: Poisson; below: bursts; above: even"
    )
    group.add_argument("--max-concurrency", type=int, metavar="N")
    group.add_argument("--num-warmups", type=int, default=0, metavar="N")
    group.add_argument("--disable-tqdm", action="store_true", help="no progress line")
    group = parser.add_argument_group("results")
    group.add_argument("--percentile-metrics", default="ttft,tpot,itl", metavar="NAMES")
    group.add_argument("--metric-percentiles", default="99", metavar="NUMBERS")
    group.add_argument(
        "--goodput", nargs="+", type=_limit, default=[], metavar="NAME:MS",
        help="of ttft, tpot, e2el: what a good request may take",
    )  # fmt: skip
    group.add_argument("--label")
    group.add_argument("--metadata", nargs="*", type=_pair, default=[], metavar="KEY=VALUE")
    group.add_argument("--save-result", action="store_true", help="write a JSON file")
    group.add_argument("--save-detailed", action="store_true", help="every request in it")
    group.add_argument("--result-dir", type=Path, default=Path(), metavar="DIR")
    group.add_argument("--result-filename", metavar="NAME")
    group.add_argument("--json", action="store_true", help="print JSON")


def _add_data(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--dataset-name", choices=("random", "sharegpt", "custom"), default="random")
    group.add_argument("--dataset-path", type=Path, metavar="FILE")
    group.add_argument("--num-prompts", type=int, default=1000, metavar="N")
    group.add_argument("--seed", type=int, default=0)
    group.add_argument("--input-len", type=int, metavar="N", help="= --random-input-len")
    group.add_argument("--output-len", type=int, metavar="N", help="of whatever data set")
    group.add_argument("--random-input-len", type=int, default=1024, metavar="N")
    group.add_argument("--random-output-len", type=int, default=128, metavar="N")
    group.add_argument("--random-range-ratio", type=float, default=0.0, metavar="R")
    group.add_argument("--random-prefix-len", type=int, default=0, metavar="N")
    group.add_argument("--sharegpt-output-len", type=int, metavar="N")
    group.add_argument("--custom-output-len", type=int, metavar="N")
    group.add_argument(
        "--ignore-eos", action="store_true", help="to the full length; always with random"
    )
    for name, kind in _SAMPLING.items():
        group.add_argument(f"--{name}", type=kind)
    group.add_argument("--extra-body", type=_object, default={}, metavar="JSON")


def handle(options: argparse.Namespace) -> int:
    """Put the server under load, print figures."""
    settings = _settings(options)
    from runtime.bench.serve.report import describe, print_result, save_result
    from runtime.bench.serve.run import run_load

    shows = sys.stderr.isatty() and not options.disable_tqdm

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    def tick(count: int, total: int) -> None:
        if shows:
            end = "\n" if count == total else ""
            print(f"\r{count} of {total} requests", end=end, file=sys.stderr, flush=True)

    load = asyncio.run(run_load(settings, say, tick))
    if load.num_interrupted:
        say(f"\ninterrupted: {load.num_interrupted} requests were cut off or not sent")
    result = describe(load, settings)
    if options.json:
        json.dump(result, sys.stdout, indent=1)
        print()
    else:
        print_result(result, load, settings)
    if options.save_result:
        try:
            path = save_result(
                result, options.result_dir, options.result_filename,
                load=load, detailed=options.save_detailed,
            )  # fmt: skip
        except OSError as error:
            raise InvalidParameterError(
                "result_dir", str(options.result_dir), f"a folder to write to: {error}"
            ) from error
        say(f"wrote {path}")
    if load.num_interrupted:
        return _INTERRUPTED
    return 0 if result["completed"] else 1


def _settings(options: argparse.Namespace) -> LoadSettings:
    from runtime.bench.serve.settings import LoadSettings

    key = next(filter(None, map(os.environ.get, _KEY_VARIABLES)), None)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    host = f"[{options.host}]" if ":" in options.host else options.host
    values = {name.replace("-", "_"): None for name in _SAMPLING}
    sampling = {name: value for name in values if (value := getattr(options, name)) is not None}
    rate = options.request_rate
    return LoadSettings(
        base_url=options.base_url or f"http://{host}:{options.port}",
        endpoint=options.endpoint or _ENDPOINTS[options.backend],
        backend=options.backend,
        model=options.model,
        tokenizer=options.tokenizer,
        headers={**headers, **dict(options.header)},
        verify_tls=not options.insecure,
        dataset=_dataset(options),
        request_rate=None if rate == math.inf else rate,
        burstiness=options.burstiness,
        max_concurrency=options.max_concurrency,
        num_warmups=options.num_warmups,
        # Random prompts have no natural end.
        ignore_eos=options.ignore_eos or options.dataset_name == "random",
        body={**sampling, **options.extra_body},
        metrics=tuple(options.percentile_metrics.split(",")),
        percentiles=_numbers(options.metric_percentiles),
        goodput_ms=dict(options.goodput),
        label=options.label,
        metadata=dict(options.metadata),
        ready_timeout_s=options.ready_check_timeout_sec,
    )


def _dataset(options: argparse.Namespace) -> Dataset:
    from runtime.bench.serve.settings import Dataset

    name = options.dataset_name
    return Dataset(
        name=name,
        path=options.dataset_path,
        num_prompts=options.num_prompts,
        seed=options.seed,
        input_len=options.random_input_len if options.input_len is None else options.input_len,
        output_len=getattr(options, f"{name}_output_len")
        if options.output_len is None
        else options.output_len,
        range_ratio=options.random_range_ratio,
        prefix_len=options.random_prefix_len,
    )


def _numbers(words: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, words.split(",")))
    except ValueError as error:
        raise InvalidParameterError("metric_percentiles", words, "numbers with commas") from error


def _pair(word: str) -> tuple[str, str]:
    name, separator, value = word.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{word!r} is not KEY=VALUE")
    return name.strip(), value.strip()


def _limit(word: str) -> tuple[str, float]:
    name, _, value = word.partition(":")
    try:
        return name, float(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{word!r} is not NAME:MILLISECONDS") from error


def _object(word: str) -> dict[str, Any]:
    try:
        found = json.loads(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{word!r} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"{word!r} is not a JSON object")
    return found
