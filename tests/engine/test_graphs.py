"""Padded decodes, and the book-keeping of captured ones, with a stand-in for CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from late_stream import LateStream
from tiny_models import make_prompts, save_model

import runtime.engine
import runtime.engine_plan
from runtime.batch import ScheduledBatch
from runtime.config import EngineConfig
from runtime.engine import LLMEngine
from runtime.graphs import DecodeGraphs, Graph, default_capture_sizes
from runtime.model_runner import Model
from runtime.ops import OPERATION_SETS
from runtime.outputs import RequestOutput
from runtime.sampling_params import BeamSearchParams, SamplingParams
from runtime.step_inputs import StepInputs

SEATS = 7
SIZES = (1, 2, 4, 7)
MIXED = (
    SamplingParams(temperature=0, max_tokens=9, ignore_eos=True),
    SamplingParams(temperature=1.2, seed=3, max_tokens=12, n=2, ignore_eos=True),
    SamplingParams(temperature=0, max_tokens=6, repetition_penalty=1.5, logprobs=1),
    BeamSearchParams(beam_width=2, max_tokens=7),
    SamplingParams(temperature=0, max_tokens=15, ignore_eos=True),
)


class Replay:
    """Runs the captured call again, over what is in its tensors now."""

    def __init__(self, forward: Callable[[], torch.Tensor], hidden: torch.Tensor) -> None:
        self._forward = forward
        self._hidden = hidden
        self.count = 0

    def replay(self) -> None:
        self._hidden.copy_(self._forward())
        self.count += 1


class ReplayDevice:
    """Keeps the call where a GPU would record its kernels."""

    def __init__(self) -> None:
        self.graphs: list[Replay] = []
        self.sizes: list[int] = []

    def capture(self, forward: Callable[[], torch.Tensor]) -> tuple[Graph, torch.Tensor]:
        hidden = forward().clone()
        self.sizes.append(len(hidden))
        self.graphs.append(Replay(forward, hidden))
        return self.graphs[-1], hidden

    def counts(self) -> dict[int, int]:
        return {size: graph.count for size, graph in zip(self.sizes, self.graphs, strict=True)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("graph-model")
    save_model("mistral", made)
    return made


MakeEngine = Callable[..., LLMEngine]


@pytest.fixture
def make_engine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> MakeEngine:
    monkeypatch.setattr(
        "runtime.loader.OPERATION_SETS", {**OPERATION_SETS, "tables": "table_ops:make"}
    )
    models: dict[str, Model] = {}

    def make(device: ReplayDevice | None = None, *, late: bool = False, **options: Any) -> Any:
        chosen: dict[str, Any] = {
            "ops": "tables",
            "num_blocks": 40,
            "block_size": 4,
            "max_num_seqs": SEATS,
            "max_model_len": 64,
            "cudagraph_capture_sizes": SIZES,
            "skip_tokenizer": True,
            **options,
        }
        with monkeypatch.context() as patch:
            patch.setattr(runtime.engine, "make_graph_device", lambda _: device)
            if late:
                patch.setattr(runtime.engine_plan, "make_stream", lambda _: LateStream())
            engine = LLMEngine(EngineConfig(folder, **chosen), model=models.get(chosen["ops"]))
        models[chosen["ops"]] = engine.runner.model
        return engine

    return make


def serve(engine: LLMEngine, params: tuple[Any, ...] = MIXED) -> list[list[tuple[int, ...]]]:
    done: dict[str, RequestOutput] = {}
    for index, (prompt, each) in enumerate(
        zip(make_prompts([9, 5, 14, 3, 6, 4, 8][: len(params)]), params, strict=True)
    ):
        engine.add_request(str(index), prompt, each)
    while engine.has_unfinished:
        done.update({output.request_id: output for output in engine.step()})
    return [[o.token_ids for o in done[str(i)].outputs] for i in range(len(params))]


def pool_of(engine: LLMEngine) -> torch.Tensor:
    return engine.runner.cache.tensors[0].device  # [num_layers, 2, num_blocks, block_size, ...]


def test_tables_on_the_device_give_the_tokens_of_those_on_the_host(
    make_engine: MakeEngine,
) -> None:
    expected = serve(make_engine(ops="torch"))
    assert serve(make_engine()) == expected
    assert serve(make_engine(late=True)) == expected
    tight: dict[str, Any] = {"num_blocks": 17, "enable_forecast": False}
    for mode in ("recompute", "swap"):
        engine = make_engine(late=True, preemption_mode=mode, swap_bytes=1 << 22, **tight)
        assert serve(engine) == expected
        assert engine.scheduler.stats().num_preemptions[mode] > 0


@pytest.mark.parametrize("late", [False, True])
def test_captured_steps_give_the_same_tokens(late: bool, make_engine: MakeEngine) -> None:
    device = ReplayDevice()
    expected = serve(make_engine())
    engine = make_engine(device, late=late)
    assert device.sizes == [7, 4, 2, 1], "largest first"
    assert serve(engine) == expected
    assert sum(device.counts().values()) > 8
    assert sum(1 for count in device.counts().values() if count) >= 2


def test_prefill_and_large_batches_run_without_a_graph(make_engine: MakeEngine) -> None:
    device = ReplayDevice()
    engine = make_engine(device, cudagraph_capture_sizes=(2,))
    greedy = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    serve(engine, (greedy,) * 3)
    assert device.counts() == {2: 0}
    serve(engine, (greedy,) * 2)
    assert device.counts() == {2: 3}, "the prefill gives the first token"
    assert not make_engine(None, enforce_eager=True).runner._graphs
    eager = ReplayDevice()
    make_engine(eager, enforce_eager=True)
    assert eager.sizes == []


@pytest.mark.parametrize("count", range(1, SEATS + 1))
def test_padding_touches_nothing_that_lives(count: int, make_engine: MakeEngine) -> None:
    """Bytes of the whole cache: only each sequence's slot and the trash block change."""
    greedy = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    expected = serve(make_engine(), (greedy,) * count)
    device = ReplayDevice()
    engine = make_engine(device, cudagraph_capture_sizes=(SEATS,))
    pool = pool_of(engine)
    launch = engine.runner.launch
    padded = 0

    def watched(batch: ScheduledBatch) -> Any:
        nonlocal padded
        before = pool.clone()
        pool[:, :, 0] = torch.nan  # what padding may read, and nobody else
        step = launch(batch)
        changed = (pool != before).flatten(4).any(-1).any(0).any(0)  # [num_blocks, block_size]
        changed[0] = False
        slots = changed.flatten().nonzero()[:, 0].tolist()
        assert set(slots) <= set(batch.slot_mapping)
        if batch.num_decodes == len(batch.sequences):
            padded += 1
            assert sorted(slots) == sorted(batch.slot_mapping), "each one has been written"
            assert device.counts()[SEATS] == padded
        assert not pool[:, :, 1:].isnan().any()
        return step

    engine.runner.launch = watched  # type: ignore[method-assign]
    assert serve(engine, (greedy,) * count) == expected
    assert padded == 7


def test_a_padding_row_that_writes_to_a_live_slot_is_seen(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.step_inputs.TRASH_BLOCK", 1)
    with pytest.raises(AssertionError):
        test_padding_touches_nothing_that_lives(3, make_engine)


def test_the_padded_forward_alone_is_that_of_the_live_rows(make_engine: MakeEngine) -> None:
    """At each captured size: the rows of the live sequences, and of nobody else, are the same."""
    engine = make_engine()
    for index, prompt in enumerate(make_prompts([9, 5, 14])):
        engine.add_request(str(index), prompt, SamplingParams(temperature=0, max_tokens=9))
    engine.step()
    batch = engine.scheduler.schedule()
    inputs: StepInputs = engine.runner._inputs
    model, cache = engine.runner.model, engine.runner.cache
    with torch.inference_mode():
        alone = model.forward(inputs.upload(inputs.prepare(batch)), cache).clone()
        for size in (4, 5, 6, 7):
            inputs.upload(inputs.prepare(batch, size))
            hidden = model.forward(inputs.static_decodes(size), cache)
            assert hidden.shape[0] == size
            torch.testing.assert_close(hidden[:3], alone, rtol=1e-5, atol=1e-5)
            assert hidden.isfinite().all()


def test_sizes_cover_every_batch() -> None:
    class Nothing:
        def capture(self, forward: Callable[[], torch.Tensor]) -> tuple[Graph, torch.Tensor]:
            hidden = forward()
            return Replay(forward, hidden), hidden

    for most in (1, 3, 20, 33, 256, 300, 512):
        sizes = default_capture_sizes(most)
        assert list(sizes) == sorted(set(sizes))
        graphs = DecodeGraphs(Nothing(), sizes, lambda size: torch.zeros(size, 1))
        for count in range(1, most + 1):
            batch = ScheduledBatch(0, sequences=[None] * count, num_decodes=count)  # type: ignore[list-item]
            size = graphs.size_for(batch)
            assert size is not None
            assert count <= size <= most
            assert graphs.replay(size).shape == (size, 1)
        batch = ScheduledBatch(0, sequences=[None] * 2, num_decodes=1)  # type: ignore[list-item]
        assert graphs.size_for(batch) is None, "it has a prompt"
    assert default_capture_sizes(2000)[-1] == 512
