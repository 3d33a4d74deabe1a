"""Offline generation: a list of prompts in, a list of outputs in the same order."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from runtime.chat_template import ChatTemplate
from runtime.config import EngineConfig
from runtime.engine import LLMEngine
from runtime.errors import InvalidParameterError, RequestFailedError
from runtime.outputs import RequestOutput
from runtime.sampling_params import BeamSearchParams, SamplingParams

Prompt = str | Sequence[int]


class LLM:
    """A model, ready to generate; names follow vLLM's `LLM`.

    llm = LLM("path/to/model")
    outputs = llm.generate(["Hello"], SamplingParams(temperature=0, max_tokens=20))
    """

    def __init__(self, model: str | Path, **options: Any) -> None:
        """Load a model folder.

        Args:
            model: the folder.
            options: fields of `EngineConfig`.

        Raises:
            ModelError: the folder cannot be served.
            InvalidParameterError: an option is off, or there is none of its name.
        """
        known = [field.name for field in fields(EngineConfig) if field.name != "model"]
        for name, value in options.items():
            if name not in known:
                raise InvalidParameterError(name, value, f"left out; options are {known}")
        self.engine = LLMEngine(EngineConfig(Path(model), **options))
        self._numbers = count()

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        """Generate for every prompt; if interrupted, or one is refused, none stays behind.

        Args:
            prompts: texts or lists of token ids; a single one is taken too.
            sampling_params: for all, or one per prompt.
            use_tqdm: show a progress bar where standard error is a terminal.

        Raises:
            RequestRefusedError: the engine cannot take one of them.
            InvalidParameterError: a parameter is off.
            RequestFailedError: the engine failed on one of them.
        """
        many = _as_list(prompts)
        if isinstance(sampling_params, SamplingParams) or sampling_params is None:
            params = [sampling_params or SamplingParams()] * len(many)
        else:
            params = list(sampling_params)
            if len(params) != len(many):
                raise InvalidParameterError(
                    "sampling_params", len(params), f"one, or as many as prompts: {len(many)}"
                )
        return self._run(many, params, use_tqdm)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        sampling_params: SamplingParams | None = None,
        *,
        use_tqdm: bool = True,
        **variables: Any,
    ) -> RequestOutput:
        """Answer a conversation; see `chat_prompt` for the arguments and what they raise."""
        prompt = self.chat_prompt(messages, **variables)
        return self.generate(prompt, sampling_params, use_tqdm=use_tqdm)[0]

    def chat_prompt(self, messages: Sequence[Mapping[str, Any]], /, **variables: Any) -> list[int]:
        """Write a conversation with the model's chat template; token ids, the answer's start last.

        Args:
            messages: dicts of `role` and `content`.
            variables: further names for the template.

        Raises:
            ChatTemplateError: the model has no sound chat template.
            ChatRefusedError: the template cannot take these messages.
            InvalidParameterError: the engine was started without a tokenizer.
        """
        tokenizer = self.engine.tokenizer
        if tokenizer is None:
            raise InvalidParameterError("skip_tokenizer", True, "off to chat")
        text = ChatTemplate.load(self.engine.config.text_folder).render(messages, **variables)
        return tokenizer.encode(text, add_special_tokens=False)

    def beam_search(
        self, prompts: Prompt | Sequence[Prompt], params: BeamSearchParams, *, use_tqdm: bool = True
    ) -> list[RequestOutput]:
        """Search for the most likely outputs of every prompt; each request's are best first.

        Raises:
            RequestRefusedError: the engine cannot take one of them.
        """
        many = _as_list(prompts)
        return self._run(many, [params] * len(many), use_tqdm)

    def _run(
        self,
        prompts: Sequence[Prompt],
        params: Sequence[SamplingParams | BeamSearchParams],
        use_tqdm: bool,
    ) -> list[RequestOutput]:
        ids: list[str] = []
        done: dict[str, RequestOutput] = {}
        show = use_tqdm and sys.stderr.isatty()
        try:
            with _progress(show) as progress:
                task = progress.add_task("generating", total=len(prompts), rate="")
                for prompt, each in zip(prompts, params, strict=True):
                    ids.append(str(next(self._numbers)))
                    self.engine.add_request(ids[-1], prompt, each)
                num_tokens = 0
                while self.engine.has_unfinished:
                    for output in self.engine.step():
                        if output.error is not None:
                            raise RequestFailedError(output.error)
                        if output.finished:
                            done[output.request_id] = output
                            num_tokens += sum(len(o.token_ids) for o in output.outputs)
                            elapsed_s = progress.tasks[0].elapsed or 0.0
                            rate = f"{num_tokens / max(elapsed_s, 1e-3):.1f} tokens/s"
                            progress.update(task, advance=1, rate=rate)
        finally:
            for request_id in ids:
                self.engine.abort(request_id)
        return [done[request_id] for request_id in ids]


def _as_list(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    if isinstance(prompts, str):
        return [prompts]
    items: list[Any] = list(prompts)
    if items and all(isinstance(item, int) for item in items):
        return [items]
    return items


def _progress(show: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[rate]}"),
        console=Console(file=sys.stderr),
        disable=not show,
        transient=True,
    )
