"""The story of `autotune replay`: searches over recorded spaces, no GPU and no compiler needed.

A replayed search goes through the same ledger and the same samplers as a real one. **What counts as
an evaluation**: every configuration that the sampler asks for, those that fail included. What was
legal is not in a recording and costs nothing; nothing is asked twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from autotune.config import Config
from autotune.errors import UsageError
from autotune.recorded import RecordedSpace
from autotune.search.candidates import Candidates
from autotune.search.ledger import Ledger, memory_storage

MOST_WARM_STARTS = 4


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """How a sampler is judged."""

    evals: int = 100
    seeds: int = 20
    first_seed: int = 0
    batch_size: int = 1
    """Evaluations asked for together, before the sampler learns from them."""


@dataclass(frozen=True, slots=True)
class Replay:
    """All searches of one sampler over one space."""

    space: RecordedSpace
    sampler: str
    warm_starts: int
    best: np.typing.NDArray[np.float64]
    """[seeds, evals]: best fraction of the optimum after each evaluation; 0 while all failed."""


def replay(
    space: RecordedSpace,
    sampler: str,
    options: ReplayOptions,
    warm: Sequence[Config] = (),
    on_search: Callable[[], None] = lambda: None,
) -> Replay:
    """Search a recorded space once per seed.

    Raises:
        UnknownChoiceError: no such sampler.
        UsageError: more evaluations than the space has configurations.
    """
    if options.evals > len(space.configs):
        raise UsageError(
            f"--evals {options.evals}: {space.name} has {len(space.configs)} configurations; "
            "ask for fewer"
        )
    candidates = Candidates(space.searched, _searched_configs(space))
    fractions = np.array(space.fractions())
    starts = [_only(space, config) for config in warm[: options.evals // 2]]
    curves = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        asked = search_once(space, candidates, sampler, seed, options, starts)
        curves.append(np.maximum.accumulate(fractions[asked]))
        on_search()
    return Replay(space, sampler, len(starts), np.stack(curves))


def search_once(
    space: RecordedSpace,
    candidates: Candidates,
    sampler: str,
    seed: int,
    options: ReplayOptions,
    starts: Sequence[Config],
) -> list[int]:
    """Indices of the configurations that one search asks for, in order."""
    ledger = Ledger.open(
        memory_storage(),
        name=space.name,
        identity={},
        candidates=candidates,
        seeds=(),
        sampler=sampler,
        seed=seed,
        trials=options.evals,
        resume=False,
        batch_size=options.batch_size,
        foreign=starts,
    )
    asked: list[int] = []
    while batch := ledger.next_batch():
        for one in batch:
            index = candidates.index(one.config)
            assert index is not None, "the ledger asked for what is not legal"
            asked.append(index)
            ledger.tell(one, space.times_us[index], space.statuses[index].value, None)
    return asked


def warm_starts(source: RecordedSpace, target: RecordedSpace) -> tuple[Config, ...]:
    """At most four of the source GPU's best configurations that are legal on the target.

    Neighbours of each other tell one story four times, and trap a search where that story is wrong
    (12 near-equal starts did, on a recorded convolution). So each differs from those before it in
    at least two knobs.

    Raises:
        UsageError: the two spaces do not have the same knobs, or share no configuration.
    """
    names = {knob.name for knob in target.searched}
    if not names <= {knob.name for knob in source.knobs}:
        missing = ", ".join(sorted(names - {knob.name for knob in source.knobs}))
        raise UsageError(f"--warm-from {source.name}: it has no knob {missing} of {target.name}")
    known = set(_searched_configs(target))
    chosen: list[Config] = []
    ranked = sorted((time, index) for index, time in enumerate(source.times_us) if time is not None)
    for _, index in ranked:
        config = _only(target, source.configs[index])
        different = all(len(config.changes_from(other)) >= 2 for other in chosen)
        if config in known and different:
            chosen.append(config)
        if len(chosen) == MOST_WARM_STARTS:
            break
    if not chosen:
        raise UsageError(f"--warm-from {source.name}: no configuration of it is in {target.name}")
    return tuple(chosen)


def _searched_configs(space: RecordedSpace) -> tuple[Config, ...]:
    return tuple(_only(space, config) for config in space.configs)


def _only(space: RecordedSpace, config: Config) -> Config:
    """The configuration without the knobs that never change."""
    return Config({knob.name: config[knob.name] for knob in space.searched})
