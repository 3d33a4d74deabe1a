"""Steps launched ahead of their results give the tokens that steps one by one give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from late_stream import LateStream
from tiny_models import make_prompts, save_model
from tiny_tokenizer import save_tokenizer

import runtime.engine_plan
from runtime.batch import ScheduledBatch
from runtime.config import EngineConfig
from runtime.engine import LLMEngine
from runtime.errors import InvalidParameterError
from runtime.model_runner import Model, ModelRunner, StepInFlight
from runtime.outputs import CompletionOutput, RequestOutput
from runtime.sampling_params import BeamSearchParams, SamplingParams
from runtime.step_inputs import StepInputs
from runtime.token_counts import TokenCounts

Params = SamplingParams | BeamSearchParams
GREEDY: dict[str, Any] = {"temperature": 0.0, "ignore_eos": True}
HOT: dict[str, Any] = {"temperature": 1.3, "seed": 11}
FEATURES: dict[str, tuple[Params, ...]] = {
    "greedy": (SamplingParams(**GREEDY, max_tokens=14),) * 2,
    "seeds": (
        SamplingParams(**HOT, max_tokens=12),
        SamplingParams(temperature=0.8, max_tokens=12, top_k=20, top_p=0.9),
        SamplingParams(temperature=1.1, max_tokens=12, min_p=0.02),
    ),
    "penalties": (
        SamplingParams(**GREEDY, max_tokens=16, repetition_penalty=1.6),
        SamplingParams(**HOT, max_tokens=16, presence_penalty=1.5, frequency_penalty=0.7),
        SamplingParams(**GREEDY, max_tokens=5, frequency_penalty=2.0, logit_bias={7: 3.0}),
    ),
    "logprobs": (
        SamplingParams(**GREEDY, max_tokens=9, logprobs=3, prompt_logprobs=2),
        SamplingParams(**HOT, max_tokens=9, logprobs=0),
    ),
    "stops": (
        SamplingParams(**HOT, max_tokens=30, stop=("e", "th", "qu")),
        SamplingParams(**HOT, max_tokens=30, stop=("a",), min_tokens=6, n=2),
        SamplingParams(**HOT, max_tokens=30, stop_token_ids=tuple(range(3, 90)), min_tokens=4),
        SamplingParams(**HOT, max_tokens=30, stop_token_ids=tuple(range(3, 60))),
    ),
    "siblings": (
        SamplingParams(**HOT, max_tokens=10, n=3, repetition_penalty=1.3),
        SamplingParams(**HOT, max_tokens=1, n=2),
    ),
    "beams": (
        BeamSearchParams(beam_width=3, max_tokens=8),
        SamplingParams(**GREEDY, max_tokens=12),
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("async-model")
    save_model("llama-text", made)
    save_tokenizer(made)
    return made


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    found: Model = LLMEngine(EngineConfig(folder, num_blocks=4)).runner.model
    return found


@pytest.fixture
def make_engine(
    folder: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., LLMEngine]:
    """An engine: `late` has a device that lags behind."""

    def make(*, late: bool = False, **options: Any) -> LLMEngine:
        chosen = {"num_blocks": 64, "block_size": 8, "max_num_seqs": 8, **options}
        with monkeypatch.context() as patch:
            if late:
                patch.setattr(runtime.engine_plan, "make_stream", lambda device: LateStream())
            return LLMEngine(EngineConfig(folder, **chosen), model=model)

    return make


def requests(params: tuple[Params, ...]) -> list[tuple[str, list[int], Params]]:
    prompts = make_prompts([11, 3, 25, 8, 17, 2][: len(params)], seed=4)
    return [
        (f"r{index}", prompt, each)
        for index, (prompt, each) in enumerate(zip(prompts, params, strict=True))
    ]


def drain(engine: LLMEngine, into: dict[str, RequestOutput]) -> dict[str, RequestOutput]:
    while engine.has_unfinished:
        into.update({output.request_id: output for output in engine.step()})
    engine.scheduler.check_integrity()
    pool = engine.scheduler.blocks.pool
    assert (pool.num_free, pool.num_fenced) == (pool.num_usable, 0)
    return into


def serve(engine: LLMEngine, work: list[tuple[str, list[int], Params]]) -> dict[str, RequestOutput]:
    """Requests arrive while others run."""
    done: dict[str, RequestOutput] = {}
    for request_id, prompt, params in work:
        engine.add_request(request_id, prompt, params)
        done.update({output.request_id: output for output in engine.step()})
    return drain(engine, done)


def words(output: CompletionOutput) -> tuple[Any, ...]:
    return (output.token_ids, output.text, output.finish_reason, output.stop_reason)


def assert_same(found: dict[str, RequestOutput], expected: dict[str, RequestOutput]) -> None:
    assert found.keys() == expected.keys()
    for request_id, output in found.items():
        other = expected[request_id]
        assert output.finished
        assert [words(o) for o in output.outputs] == [words(o) for o in other.outputs]
        for mine, others in zip(output.outputs, other.outputs, strict=True):
            assert (mine.logprobs is None) == (others.logprobs is None)
            for a, b in zip(mine.logprobs or (), others.logprobs or (), strict=True):
                assert a.keys() == b.keys()
                assert [x.logprob for x in a.values()] == pytest.approx(
                    [x.logprob for x in b.values()], abs=1e-4
                )
        for a, b in zip(output.prompt_logprobs or (), other.prompt_logprobs or (), strict=True):
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                assert a.keys() == b.keys()


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("feature", FEATURES)
def test_every_feature_gives_the_same_ahead(
    feature: str, late: bool, make_engine: Callable[..., LLMEngine]
) -> None:
    work = requests(FEATURES[feature])
    expected = serve(make_engine(), work)
    assert_same(serve(make_engine(late=late, async_scheduling=True), work), expected)


@pytest.mark.parametrize("mode", ["recompute", "swap"])
def test_preempted_sequences_go_on_alike(mode: str, make_engine: Callable[..., LLMEngine]) -> None:
    mixed = [FEATURES[name][0] for name in ("greedy", "penalties", "seeds", "logprobs")]
    work = requests((*mixed, *FEATURES["penalties"][1:]))
    expected = serve(make_engine(), work)
    tight = {"num_blocks": 11, "enable_forecast": False, "preemption_mode": mode}
    engine = make_engine(late=True, swap_bytes=1 << 22, enable_prefix_caching=False, **tight)
    assert_same(serve(engine, work), expected)
    assert engine.scheduler.stats().num_preemptions[mode] > 0


def test_a_lagging_device_is_run_ahead_of_by_one_step(
    make_engine: Callable[..., LLMEngine],
) -> None:
    engine = make_engine(late=True)
    stream = engine.runner._stream
    assert isinstance(stream, LateStream)
    engine.add_request("a", [5, 6, 7], SamplingParams(**GREEDY, max_tokens=6))
    assert engine.step() == [], "the first step has no results to take"
    assert (stream.num_submitted, stream.num_done) == (1, 0)
    (output,) = engine.step()
    assert len(output.outputs[0].token_ids) == 1
    assert (stream.num_submitted, stream.num_done) == (2, 1), "two were launched, one is done"
    drain(engine, {})
    assert stream.num_submitted == 6, "the last length is foreseen: no step is wasted"
    synchronous = make_engine(late=True, async_scheduling=False)
    synchronous.add_request("a", [5, 6, 7], SamplingParams(**GREEDY, max_tokens=6))
    assert len(synchronous.step()) == 1
    assert not make_engine().scheduler.config.max_steps_in_flight > 1, "a CPU does not lag"


def test_beams_wait_for_the_host_while_others_run_ahead(
    make_engine: Callable[..., LLMEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[ScheduledBatch] = []
    ahead: Counter[bool] = Counter()
    original = ModelRunner.launch

    def launch(self: ModelRunner, batch: ScheduledBatch) -> StepInFlight:
        if launched:
            both = set(batch.samples) & set(launched[-1].samples)
            ahead.update(sequence.is_beam for sequence in both if was_in_flight())
        launched.append(batch)
        return original(self, batch)

    monkeypatch.setattr(ModelRunner, "launch", launch)
    engine = make_engine(late=True)

    def was_in_flight() -> bool:
        return len(engine.scheduler.roster.in_flight) == 2

    expected = serve(make_engine(), requests(FEATURES["beams"]))
    ahead.clear()
    launched.clear()
    assert_same(serve(engine, requests(FEATURES["beams"])), expected)
    assert ahead[True] == 0
    assert ahead[False] >= 8


def test_aborts_in_mid_flight_leave_the_others_alone(
    make_engine: Callable[..., LLMEngine],
) -> None:
    work = requests((*FEATURES["penalties"], *FEATURES["siblings"]))
    expected = serve(make_engine(), work)
    for when in range(1, 12):
        engine = make_engine(late=True)
        done: dict[str, RequestOutput] = {}
        for item in work:
            engine.add_request(*item)
        for _ in range(when):
            done.update({output.request_id: output for output in engine.step()})
        cut = engine.abort("r1")
        # The id is free again, and what its first bearer has in flight is nobody's.
        engine.add_request("r1", *work[1][1:])
        drain(engine, done)
        assert_same(done, expected)
        assert cut is not None
        for mine, whole in zip(cut.outputs, expected["r1"].outputs, strict=True):
            assert mine.token_ids == whole.token_ids[: len(mine.token_ids)]
        engine.add_request("last", *work[0][1:])
        engine.step()
        engine.step()
        assert engine.abort("last") is not None
        drain(engine, {})


def test_prompt_logprobs_of_an_aborted_request_go_nowhere(
    make_engine: Callable[..., LLMEngine],
) -> None:
    engine = make_engine(late=True)
    scored = SamplingParams(**GREEDY, max_tokens=3, prompt_logprobs=0)
    engine.add_request("a", [9, 8, 7, 6], scored)
    engine.step()
    engine.abort("a")
    engine.add_request("a", [3, 4], scored)
    (output,) = drain(engine, {}).values()
    assert output.prompt_logprobs is not None
    assert [entry and list(entry) for entry in output.prompt_logprobs] == [None, [4]]


def forget_the_sampled_tokens(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StepInputs, "remember", lambda self, prepared, token_ids: None)


def count_one_token_too_few(patch: pytest.MonkeyPatch) -> None:
    original = TokenCounts.count

    def count(self: TokenCounts, plan: Any, inputs: torch.Tensor, *rest: Any) -> Any:
        return original(self, plan, torch.zeros_like(inputs), *rest)

    patch.setattr(TokenCounts, "count", count)


def take_results_of_sequences_that_ended(patch: pytest.MonkeyPatch) -> None:
    original = LLMEngine._take_samples

    def take(self: LLMEngine, batch: Any, sampled: Any, dropped: set[int]) -> Any:
        return original(self, batch, sampled, set())

    patch.setattr(LLMEngine, "_take_samples", take)


@pytest.mark.parametrize(
    ("plant", "feature"),
    [
        (forget_the_sampled_tokens, "greedy"),
        (count_one_token_too_few, "penalties"),
        (take_results_of_sequences_that_ended, "stops"),
    ],
)
def test_a_planted_bug_is_seen(
    plant: Callable[[pytest.MonkeyPatch], None],
    feature: str,
    make_engine: Callable[..., LLMEngine],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = requests(FEATURES[feature])
    expected = serve(make_engine(), work)
    plant(monkeypatch)
    with pytest.raises((AssertionError, KeyError)):
        assert_same(serve(make_engine(late=True), work), expected)


def test_options_of_stepping_are_checked(folder: Path) -> None:
    with pytest.raises(InvalidParameterError, match="one of auto, recompute, swap"):
        EngineConfig(folder, preemption_mode="drop")
    for sizes in ((), (0,), (65,)):
        with pytest.raises(InvalidParameterError, match="cudagraph_capture_sizes"):
            EngineConfig(folder, cudagraph_capture_sizes=sizes)
    assert EngineConfig(folder, cudagraph_capture_sizes=(4, 1)).cudagraph_capture_sizes == (1, 4)
