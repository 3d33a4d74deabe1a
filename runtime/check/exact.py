"""The first tier: in fp32, the same token ids in every scenario."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from runtime.check.engine_bench import EngineBench, run_all
from runtime.check.outcome import Mismatch, Outcome, Tier
from runtime.check.reference import ReferenceRun
from runtime.check.scenarios import SCENARIOS, Scenario
from runtime.outputs import RequestOutput
from runtime.sampling_params import SamplingParams


def check_exact(
    bench: EngineBench,
    runs: Sequence[ReferenceRun],
    num_tokens: int,
    scenarios: Sequence[Scenario] = SCENARIOS,
    *,
    end_ids: Collection[int] = (),
) -> Iterator[Outcome]:
    """Run every scenario and compare all tokens.

    Args:
        bench: makes an engine for each scenario.
        runs: prompts and what the reference made of them, going on after end tokens.
        num_tokens: tokens of each output.
        scenarios: ways to cut and disturb the work.
        end_ids: the model's end tokens, for the scenarios that stop there.
    """
    params = SamplingParams(temperature=0, max_tokens=num_tokens, logprobs=0, ignore_eos=True)
    for scenario in scenarios:
        if scenario.ends_early:
            ended = [_up_to_end(run, end_ids) for run in runs]
            yield _check(bench, scenario, ended, replace(params, ignore_eos=False))
        else:
            yield _check(bench, scenario, runs, params)


def _up_to_end(run: ReferenceRun, end_ids: Collection[int]) -> ReferenceRun:
    """Cut a run after its first end token."""
    ends = (place for place, token in enumerate(run.tokens, 1) if token in end_ids)
    num_tokens = next(ends, len(run.tokens))
    return replace(run, tokens=run.tokens[:num_tokens], logprobs=run.logprobs[:num_tokens])


def _check(
    bench: EngineBench,
    scenario: Scenario,
    runs: Sequence[ReferenceRun],
    params: SamplingParams,
) -> Outcome:
    outputs, note = run_scenario(bench, scenario, runs, params)
    num_tokens = sum(len(run.tokens) for run in runs)
    mismatch = first_mismatch(runs, outputs)
    return Outcome(Tier.EXACT, scenario.name, num_tokens, note, mismatch)


def run_scenario(
    bench: EngineBench,
    scenario: Scenario,
    runs: Sequence[ReferenceRun],
    params: SamplingParams,
) -> tuple[list[RequestOutput], str]:
    """Run the prompts; returns their outputs, and how much of what is special took place."""
    engine = bench.engine(scenario)
    prompts = [run.prompt for run in runs]
    each = [params] * len(runs)
    if scenario.is_warm:
        run_all(engine, prompts, each)
    outputs = run_all(engine, prompts, each, one_by_one=scenario.one_by_one)
    stats = engine.scheduler.stats()
    note = ""
    if scenario.is_warm:
        note = f"{stats.num_prefix_hits} tokens from the cache"
    if scenario.preemption is not None:
        note = f"{stats.num_preemptions[scenario.preemption.value]} preemptions"
    return outputs, note


def first_mismatch(
    runs: Sequence[ReferenceRun], outputs: Sequence[RequestOutput]
) -> Mismatch | None:
    """Where the first prompt that differs does so first, None if all are equal."""
    for index, (run, output) in enumerate(zip(runs, outputs, strict=True)):
        position = first_difference(run.tokens, output.outputs[0].token_ids)
        if position is not None:
            return describe(index, position, run, output)
    return None


def first_difference(expected: Sequence[int], found: Sequence[int]) -> int | None:
    """Index of the first token that differs, or that only one side has."""
    for position in range(max(len(expected), len(found))):
        if list(expected[position : position + 1]) != list(found[position : position + 1]):
            return position
    return None


def describe(index: int, position: int, run: ReferenceRun, output: RequestOutput) -> Mismatch:
    """Both sides at a position."""
    completion = output.outputs[0]
    token_id = logprob = expected = expected_logprob = None
    if position < len(completion.token_ids):
        token_id = completion.token_ids[position]
        assert completion.logprobs is not None
        logprob = completion.logprobs[position][token_id].logprob
    if position < len(run.tokens):
        expected = run.tokens[position]
        expected_logprob = run.logprobs[position, expected].item()
    return Mismatch(index, position, token_id, logprob, expected, expected_logprob)
