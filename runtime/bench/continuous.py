"""Continuous batching of transformers, `generate_batch`, with a length per request.

On a CPU as the library sets itself up. On a GPU it leaves CUDA graphs and its overlap of host and
device off wherever it has no flash attention at hand, so both ways are tried on a few seconds of
the workload, and the faster one takes part.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from typing import Any

from runtime.bench.hf_model import NO_TOKEN, HfModel, page_field
from runtime.bench.served import Served
from runtime.bench.setup import Setup
from runtime.bench.workload import Workload

_PAGE_TOKENS = 128
_NEVER = -1
"""An end token that no model writes."""
_TRIAL_S = 12.0
_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "own": {},
    "graphs and overlap": {"use_cuda_graph": True, "use_async_batching": True},
}


class Continuous:
    """One manager per run; its start, graphs included, is no part of the time on a GPU."""

    def __init__(self, model: HfModel) -> None:
        self._model = model
        self.settings: str | None = None
        """What was fastest; None before anything was tried."""
        self.tried: dict[str, float | str] = {}
        """Settings -> output tokens per second in the trial, or why there is no such figure."""
        self.limit_s: float | None = None
        """A run that takes longer is cut off, and counts what it has done; None for no limit."""

    def __call__(self, workload: Workload, batch_size: int) -> Served:
        """Serve a workload with the fastest settings."""
        if self.settings is None:
            self._try(workload)
        assert self.settings is not None
        return self._run(workload, _SETTINGS[self.settings], self.limit_s)

    @property
    def attention(self) -> str:
        """Which implementation of attention the library is left with."""
        return str(self._model.get().config._attn_implementation)

    def _try(self, workload: Workload) -> None:
        if self._model.device.type == "cpu":
            self.settings = "own"
            return
        rates: dict[str, float] = {}
        for name, options in _SETTINGS.items():
            try:
                served = self._run(workload, options, _TRIAL_S)
            except Exception as error:  # a mode that another library cannot run is an answer
                self.tried[name] = f"{type(error).__name__}: {error}"[:300]
                continue
            self.tried[name] = rates[name] = served.num_output_tokens / served.seconds
        if not rates:
            raise RuntimeError(f"transformers runs none of its settings: {self.tried}")
        self.settings = max(rates, key=rates.__getitem__)

    def _run(self, workload: Workload, options: Mapping[str, Any], limit_s: float | None) -> Served:
        from transformers import ContinuousBatchingConfig, GenerationConfig

        plan = GenerationConfig(do_sample=False, pad_token_id=NO_TOKEN, eos_token_id=_NEVER)
        # Left to itself, the cache takes all memory.
        pages = sum(
            -(-(len(p) + n) // _PAGE_TOKENS)
            for p, n in zip(workload.prompts, workload.output_lens, strict=True)
        )
        cache = ContinuousBatchingConfig(
            **{page_field(): _PAGE_TOKENS},
            num_blocks=pages + 4,
            max_batch_tokens=2048,
            **options,
        )
        model = self._model.get()
        started = time.perf_counter()
        with model.continuous_batching_context_manager(
            generation_config=plan, continuous_batching_config=cache, **_hints(model, workload)
        ) as manager:
            if self._model.device.type != "cpu":
                started = time.perf_counter()
            for prompt, count in zip(workload.prompts, workload.output_lens, strict=True):
                manager.add_request(list(prompt), max_new_tokens=count)
            return _collect(manager, workload, started, limit_s)


def _collect(manager: Any, workload: Workload, started: float, limit_s: float | None) -> Served:
    """Take results until all have ended, or time is up."""
    num_tokens = num_done = 0
    while num_done < len(workload.prompts):
        result = manager.get_result(timeout=1)
        assert result is not None or manager.is_running(), "transformers has given up"
        if result is not None and result.is_finished():
            assert result.error is None, result.error
            num_done += 1
            num_tokens += len(result.generated_tokens)
        seconds = time.perf_counter() - started
        if limit_s is not None and seconds > limit_s and num_done < len(workload.prompts):
            running = list(manager.batch_processor.scheduler.active_requests.values())
            num_tokens += sum(state.generated_len() for state in running)
            manager.stop(block=True, hard_stop=True)
            return Served(seconds, num_tokens, None)
    assert num_tokens == workload.num_output_tokens, "a request ended early"
    return Served.all_of(workload, time.perf_counter() - started)


def _hints(model: Any, workload: Workload) -> dict[str, Any]:
    """Sizes that `generate_batch` would tell the manager, where this release takes them."""
    known = inspect.signature(model.continuous_batching_context_manager).parameters
    if "workload_hints" not in known:
        return {}
    from transformers.generation.continuous_batching.utils import WorkloadHints

    return {
        "workload_hints": WorkloadHints(
            max_prompt_length=max(map(len, workload.prompts)),
            max_generated_length=max(workload.output_lens),
            num_requests=len(workload.prompts),
        )
    }


def prepare_hf_continuous(setup: Setup, model: HfModel) -> Continuous:
    """Load the model."""
    model.get()
    return Continuous(model)
