"""Races on made-up stopwatches and clocks: turns, stopping, and what heat does to samples."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from autotune.clocks import HW_THERMAL, POWER_BRAKE, POWER_CAP, SW_THERMAL, ClockReading
from autotune.policy import Mode, Policy, mode_for
from autotune.race import Race, race

PATIENT = Policy(cap_s=60.0, pause_s=0.0)


def reading(reasons: int = 0, sm_mhz: int = 1980) -> ClockReading:
    return ClockReading(sm_mhz, 2600, 500.0, 60, reasons)


class MadeUpClocks:
    """Says what it is told, one reading after the other; then that all is well."""

    def __init__(self, *readings: ClockReading) -> None:
        self._readings = iter(readings)

    def read(self) -> ClockReading:
        return next(self._readings, reading())


def noisy(mean_us: float, spread: float, seed: int) -> Callable[[], float]:
    rng = np.random.default_rng(seed)
    return lambda: mean_us * (1 + spread * float(rng.standard_normal()))


def test_entrants_take_turns_and_each_round_starts_with_another_one() -> None:
    order: list[int] = []

    def stopwatch(number: int) -> Callable[[], float]:
        def sample() -> float:
            order.append(number)
            return 10.0 + number

        return sample

    found = race([stopwatch(n) for n in range(3)], MadeUpClocks(), PATIENT)
    assert order[:9] == [0, 1, 2, 1, 2, 0, 2, 0, 1]
    assert [set(samples) for samples in found.samples_us] == [{10.0}, {11.0}, {12.0}]


def test_a_quiet_race_ends_early_and_a_noisy_one_when_its_noise_is_known() -> None:
    quiet = race([noisy(10.0, 0.001, 1)] * 2, MadeUpClocks(), PATIENT)
    assert (quiet.stopped, len(quiet.samples_us[0])) == ("spread", PATIENT.least_rounds)
    loud = race([noisy(10.0, 0.05, 1)], MadeUpClocks(), PATIENT)
    assert loud.stopped == "settled"
    assert 2 * PATIENT.least_rounds <= len(loud.samples_us[0]) < PATIENT.most_rounds


def test_a_race_without_an_end_is_capped() -> None:
    growing = iter(range(1, 10_000))
    policy = dataclasses.replace(PATIENT, settled=0.0, most_rounds=30)
    found = race([lambda: float(next(growing))], MadeUpClocks(), policy)
    assert (found.stopped, len(found.samples_us[0])) == ("rounds", 30)
    hurried = dataclasses.replace(policy, cap_s=0.0)
    found = race([lambda: float(next(growing))], MadeUpClocks(), hurried)
    assert (found.stopped, len(found.samples_us[0])) == ("time", 3)


@pytest.mark.parametrize("reason", [SW_THERMAL, HW_THERMAL, POWER_BRAKE])
def test_rounds_that_heat_or_a_brake_slowed_are_discarded_but_kept_apart(reason: int) -> None:
    times: Iterator[float] = iter([10.0, 99.0, 10.0, 98.0, *[10.0] * 100])
    clocks = MadeUpClocks(reading(), reading(reason), reading(), reading(reason))
    found = race([lambda: next(times)], clocks, PATIENT)
    assert set(found.samples_us[0]) == {10.0}
    assert found.discarded_us == ((99.0,), (98.0,))
    assert len(found.clocks) == len(found.samples_us[0]) + 2
    conditions = found.timing(0).conditions
    assert conditions is not None
    assert conditions.discarded == 2


def test_a_gpu_that_never_cools_down_is_timed_as_it_is() -> None:
    policy = dataclasses.replace(PATIENT, most_discards=3)
    found = race([lambda: 10.0], MadeUpClocks(*[reading(SW_THERMAL)] * 1000), policy)
    assert len(found.discarded_us) == 3
    assert len(found.samples_us[0]) == policy.least_rounds


def test_the_power_cap_is_a_tag_only() -> None:
    capped = MadeUpClocks(*[reading(POWER_CAP, 1500)] * 5)
    found = race([lambda: 10.0], capped, PATIENT)
    assert found.discarded_us == ()
    conditions = found.timing(0).conditions
    assert conditions is not None
    assert (conditions.power_capped, conditions.sm_mhz) == (0.5, 1740)


def test_a_race_survives_json_and_faults_find_their_places() -> None:
    found = race([lambda: 10.0, lambda: 20.0], MadeUpClocks(), PATIENT)
    whole = found.with_faults([None, "wrong", None])
    assert [len(samples) for samples in whole.samples_us] == [10, 0, 10]
    assert whole.timing(2).median_us == 20.0
    assert Race.from_json(json.loads(json.dumps(whole.to_json()))) == whole
    policy = dataclasses.replace(PATIENT, mode=Mode.GRAPH)
    assert Policy.from_json(json.loads(json.dumps(policy.to_json()))) == policy


def test_what_engines_capture_is_timed_as_a_graph() -> None:
    assert mode_for({"num_seqs": 128, "context_len": 32768}) is Mode.GRAPH
    assert mode_for({"m": 16}) is Mode.GRAPH
    assert mode_for({"m": 4096}) is Mode.EAGER
    assert mode_for({"num_seqs": 1, "query_len": 512, "context_len": 512}) is Mode.EAGER
