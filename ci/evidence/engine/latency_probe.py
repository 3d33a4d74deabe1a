"""Probe: time per token of small batches against the floor, and the host's share by name."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evidence.engine.engines import copy_gbs, free, make_engine, requests, time_us, wait
from evidence.engine.host_profile import HostProfile
from evidence.engine.probe import Tell
from evidence.engine.vocabulary import write_tokenizer

from runtime.engine import LLMEngine
from runtime.model_config import ModelConfig, load_model_config
from runtime.sampling_params import SamplingParams
from runtime.weight_memory import shape_bytes

_WARM_UP_STEPS = 8
_GRAPH_REPLAYS = 20


def main(request: Mapping[str, Any], tell: Tell) -> None:
    """Measure batch after batch.

    Args:
        request: `folder`, `batches`, `prompt_len`, `steps` of a window, `rounds` windows, `engine`
            options.
        tell: for each batch a row, and the copy bandwidth.
    """
    bandwidth = copy_gbs()
    free()
    tell(copy_gbs=bandwidth)
    folder = Path(request["folder"])
    model = load_model_config(folder)
    assert isinstance(model, ModelConfig)
    write_tokenizer(folder, model.vocab_size)
    started = time.perf_counter()
    engine = make_engine(request["folder"], {**request["engine"], "skip_tokenizer": False})
    tell(
        start_s=time.perf_counter() - started,
        block_size=engine.scheduler.config.block_size,
        weight_bytes=shape_bytes(model, engine.plan.dtype.itemsize),
    )
    for batch in request["batches"]:
        tell(batches=[_measure(engine, model, batch, request, bandwidth, tell)])


def _measure(
    engine: LLMEngine,
    model: ModelConfig,
    batch: int,
    request: Mapping[str, Any],
    bandwidth: float,
    tell: Tell,
) -> dict[str, Any]:
    steps, length = request["steps"], request["prompt_len"]
    num_tokens = 4 * _WARM_UP_STEPS + (request["rounds"] + 1) * steps
    work = requests("latency", batch, (length, length), (num_tokens,) * 2, model.vocab_size)
    params = SamplingParams(temperature=0, max_tokens=num_tokens, ignore_eos=True)
    started = time.perf_counter()
    for index, prompt in enumerate(work.prompts):
        engine.add_request(f"{batch}/{index}", prompt, params)
    num_first = 0
    while num_first < batch:
        num_first += sum(len(o.outputs[0].token_ids) == 1 for o in engine.step())
    first_token_s = time.perf_counter() - started
    for _ in range(_WARM_UP_STEPS):
        engine.step()
    windows = [_window_us(engine, steps) for _ in range(request["rounds"])]
    step_us = sorted(windows)[len(windows) // 2]
    with HostProfile(engine) as profile:
        profiled_us = _window_us(engine, steps)
    token_bytes = engine.plan.kv.token_bytes(model)
    # Half of the windows lie before the middle one.
    context = length + _WARM_UP_STEPS + steps * request["rounds"] // 2
    kv_bytes = batch * context * token_bytes
    weights = shape_bytes(model, engine.plan.dtype.itemsize)
    if not model.tie_word_embeddings:  # of the embedding a step reads a row for each token
        weights -= model.vocab_size * model.hidden_size * engine.plan.dtype.itemsize
    floor_us = (weights + kv_bytes) / bandwidth / 1e3
    row = {
        "batch": batch,
        "context": context,
        "first_token_s": first_token_s,
        "step_us": step_us,
        "floor_us": floor_us,
        "of_floor": floor_us / step_us,
        "tokens_per_s": batch / step_us * 1e6,
        "gbs": (weights + kv_bytes) / step_us / 1e3,
        "bytes": {"weights": weights, "kv": kv_bytes},
        "profiled_step_us": profiled_us,
        "host_us": profile.per_step_us(),
        "device_us": _device_us(engine, batch),
    }
    while engine.has_unfinished:
        engine.step()
    tell(raw={"batch": batch, "windows_us": windows})
    return row


def _window_us(engine: LLMEngine, steps: int) -> float:
    """Mean of a step, between two waits for the device."""
    wait()
    started = time.perf_counter()
    for _ in range(steps):
        engine.step()
    wait()
    return (time.perf_counter() - started) / steps * 1e6


def _device_us(engine: LLMEngine, batch: int) -> dict[str, float]:
    """The graph alone, and the head alone, called in a row: what no host time can go below.

    Repeats the last step's writes, in slots that are written again by nobody else.
    """
    import torch

    graphs = engine.runner._graphs
    if graphs is None:
        return {}
    size = next(size for size in graphs.sizes if size >= batch)
    hidden = graphs.replay(size)[:batch]
    with torch.inference_mode():
        return {
            "graph": time_us(lambda: graphs.replay(size), _GRAPH_REPLAYS, 5),
            "head and choice": time_us(
                lambda: engine.runner.model.logits(hidden).argmax(dim=-1), _GRAPH_REPLAYS, 5
            ),
        }
