"""Who runs a workload: the engine, and Hugging Face one by one, in padded batches, continuously."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from runtime.bench.continuous import prepare_hf_continuous
from runtime.bench.hf_model import NO_TOKEN, HfModel
from runtime.bench.served import Served
from runtime.bench.setup import Setup
from runtime.bench.workload import Workload
from runtime.engine import LLMEngine
from runtime.sampling_params import SamplingParams

Run = Callable[[Workload, int], Served]
"""Serve all requests to their ends, at most so many at once where the contender has batches."""


class EngineContender:
    """The engine; no run finds anything in the prefix cache that another has left there."""

    def __init__(self, setup: Setup) -> None:
        self.engine = LLMEngine(setup.engine_config())
        self._num_runs = 0

    def __call__(self, workload: Workload, batch_size: int) -> Served:
        """Serve a workload; `batch_size` is the engine's own affair."""
        return self.serve(workload)

    def serve(self, workload: Workload, after_step: Callable[[], None] | None = None) -> Served:
        """Submit all requests and step until they have ended."""
        self._num_runs += 1
        return serve(self.engine, workload, after_step, salt=f"run {self._num_runs}")


def serve(
    engine: LLMEngine,
    workload: Workload,
    after_step: Callable[[], None] | None = None,
    *,
    salt: str | None = None,
) -> Served:
    """Submit all requests and step until they have ended; blocks are shared under `salt` alone."""
    started = time.perf_counter()
    for index, (prompt, count) in enumerate(
        zip(workload.prompts, workload.output_lens, strict=True)
    ):
        params = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True)
        engine.add_request(str(index), prompt, params, cache_salt=salt)
    num_tokens = 0
    while engine.has_unfinished:
        for output in engine.step():
            assert output.error is None, output.error
            if output.finished:
                num_tokens += len(output.outputs[0].token_ids)
        if after_step is not None:
            after_step()
    assert num_tokens == workload.num_output_tokens, "a request ended early"
    return Served.all_of(workload, time.perf_counter() - started)


def prepare_engine(setup: Setup, model: HfModel) -> EngineContender:
    """Load the engine."""
    return EngineContender(setup)


def prepare_hf(setup: Setup, model: HfModel) -> Run:
    """`generate`, one request at a time."""
    model.get()
    return OneByOne(model)


@dataclass(frozen=True, slots=True)
class OneByOne:
    """Padded batches of one: no padding."""

    model: HfModel

    def __call__(self, workload: Workload, batch_size: int) -> Served:
        """Serve one after the other."""
        return PaddedBatches(self.model)(workload, 1)


def prepare_hf_batch(setup: Setup, model: HfModel) -> Run:
    """`generate` on batches of requests in their order."""
    model.get()
    return PaddedBatches(model)


@dataclass(frozen=True, slots=True)
class PaddedBatches:
    """Each is padded to its longest on both ends."""

    model: HfModel

    def __call__(self, workload: Workload, batch_size: int) -> Served:
        """Serve a batch after the other."""
        started = time.perf_counter()
        for start in range(0, len(workload.prompts), batch_size):
            part = workload.part(start, start + batch_size)
            longest = max(map(len, part.prompts))
            rows = [[NO_TOKEN] * (longest - len(p)) + list(p) for p in part.prompts]
            mask = [[0] * (longest - len(p)) + [1] * len(p) for p in part.prompts]
            count = max(part.output_lens)
            found = self.model.get().generate(
                self.model.tensor(rows),
                attention_mask=self.model.tensor(mask),
                min_new_tokens=count,
                max_new_tokens=count,
            )
            assert found[0, -1].item() >= 0  # waits for the device
        return Served.all_of(workload, time.perf_counter() - started)


CONTENDERS: Mapping[str, Callable[[Setup, HfModel], Run]] = {
    "engine": prepare_engine,
    "hf": prepare_hf,
    "hf-batch": prepare_hf_batch,
    "hf-continuous": prepare_hf_continuous,
}
"""Name -> loads a model folder; those of transformers share the model."""
