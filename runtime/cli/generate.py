"""`runtime generate`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from dataclasses import fields
from typing import Any

from runtime.cli.engine_options import (
    add_engine_arguments,
    engine_config,
    note_impl,
    prepare_process,
)
from runtime.cli.explanation import add_explain_arguments, check_gpu, print_explanation
from runtime.errors import InvalidParameterError
from runtime.outputs import RequestOutput
from runtime.sampling_params import BeamSearchParams, SamplingParams

EXAMPLES = """examples:
  runtime generate path/to/model --prompt "Once upon a time"
  runtime generate path/to/model --chat "What is a list?"
  runtime generate path/to/model --prompt "A" --prompt "B" --max-tokens 50 --json
  runtime generate path/to/model --prompt "Dear" --temperature 0.8 --top-p 0.95 --seed 1 --n 3
  runtime generate path/to/model --prompt "Dear" --beam-width 4
  runtime generate path/to/model --prompt-ids 1,15043,3186
  runtime generate path/to/model --explain                what it would run on, and why
  runtime generate path/to/model --explain --gpu h100     the same for a GPU that is not here"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    default: dict[str, Any] = {field.name: field.default for field in fields(SamplingParams)}
    parser.add_argument("--prompt", action="append", default=[], help="text; repeatable")
    parser.add_argument(
        "--chat",
        action="append",
        default=[],
        metavar="QUESTION",
        help="ask in the model's own chat format; repeatable",
    )
    parser.add_argument(
        "--prompt-ids", action="append", default=[], type=_ids, help="1,2,3; no tokenizer is needed"
    )
    group = parser.add_argument_group("sampling")
    # Unlike the API's, a command's default is to give the same output every time.
    group.add_argument("--temperature", type=float, default=0.0, help="default 0: greedy")
    group.add_argument("--max-tokens", type=int, default=64, help="default 64")
    for name, kind in (("n", int), ("top_k", int), ("top_p", float), ("min_p", float)):
        option = f"--{name.replace('_', '-')}"
        group.add_argument(option, type=kind, default=default[name])
    for name in ("presence_penalty", "frequency_penalty", "repetition_penalty"):
        option = f"--{name.replace('_', '-')}"
        group.add_argument(option, type=float, default=default[name])
    group.add_argument("--stop", action="append", default=[], help="ends the text; repeatable")
    group.add_argument("--logprobs", type=int, help="most likely tokens to report, with --json")
    group.add_argument("--ignore-eos", action="store_true")
    group.add_argument("--beam-width", type=int, help="search with so many beams, not sampling")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_explain_arguments(parser)
    add_engine_arguments(parser)


def handle(options: argparse.Namespace) -> int:
    """Generate, and print the continuations."""
    prepare_process(options.ops)
    check_gpu(options)
    if options.explain:
        return print_explanation(engine_config(options), options.gpu, as_json=options.json)
    if not (options.prompt or options.chat or options.prompt_ids):
        raise InvalidParameterError("prompt", [], "given at least once, or --chat, or --prompt-ids")
    params = SamplingParams(
        n=options.n,
        temperature=options.temperature,
        max_tokens=options.max_tokens,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        presence_penalty=options.presence_penalty,
        frequency_penalty=options.frequency_penalty,
        repetition_penalty=options.repetition_penalty,
        stop=tuple(options.stop),
        logprobs=options.logprobs,
        ignore_eos=options.ignore_eos,
    )
    beams = BeamSearchParams(
        1 if options.beam_width is None else options.beam_width,
        max_tokens=options.max_tokens,
        ignore_eos=options.ignore_eos,
    )
    config = dataclasses.replace(
        engine_config(options), skip_tokenizer=not (options.prompt or options.chat)
    )
    # torch and transformers are loaded only now, after every word has been checked.
    from runtime.llm import LLM

    given = {field.name: getattr(config, field.name) for field in fields(config)}
    llm = LLM(given.pop("model"), **given)
    note_impl(llm.engine.model_config)
    chats = [llm.chat_prompt([{"role": "user", "content": text}]) for text in options.chat]
    prompts = [*options.prompt, *chats, *options.prompt_ids]
    if options.beam_width is None:
        outputs = llm.generate(prompts, params)
    else:
        outputs = llm.beam_search(prompts, beams)
    if options.json:
        json.dump([dataclasses.asdict(o) for o in outputs], sys.stdout, indent=1)
        print()
        return 0
    asked = [*options.prompt, *options.chat, *([None] * len(options.prompt_ids))]
    for text, output in zip(asked, outputs, strict=True):
        _print(text, output, len(outputs) > 1)
    return 0


def _print(asked: str | None, output: RequestOutput, name_prompt: bool) -> None:
    """Print the continuations: as text where text was given, else as token ids."""
    if name_prompt:
        print(f"# {asked or list(output.prompt_token_ids)}")
    for completion in output.outputs:
        has_text = asked is not None
        text = completion.text if has_text else " ".join(map(str, completion.token_ids))
        print(text if len(output.outputs) == 1 else f"[{completion.index}] {text}")


def _ids(word: str) -> list[int]:
    try:
        return [int(part) for part in word.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{word!r} is not a list like 1,2,3") from error
