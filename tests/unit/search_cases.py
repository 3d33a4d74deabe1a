"""A small space to search, a made-up objective on it, and a search that can be cut short."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from toy_kernel import ToyKernel, ToyProblem

from autotune.arch import lookup
from autotune.config import Config
from autotune.search.candidates import Candidates
from autotune.search.ledger import Asked, Ledger, open_storage

SPACE = ToyKernel().space(ToyProblem(), lookup("a100"))
KNOBS = tuple(knob for knob in SPACE.knobs if not knob.host)
BINARIES = tuple(SPACE.binaries)
SEEDS = (BINARIES[40], BINARIES[7])

Told = tuple[Config, float | None]


def objective_us(config: Config) -> float | None:
    """A bowl with its minimum at tile 64, mode b; the largest tiles at one warp fail."""
    tile, warps = config.number("tile"), config.number("num_warps")
    if tile == 128 and warps == 1:
        return None
    mode = {"a": 4.0, "b": 0.0, "c": 9.0}[str(config["mode"])]
    return 10.0 + abs(tile - 64) / 8 + mode + 3 / warps + config.number("num_stages")


def open_ledger(
    journal: Path,
    sampler: str = "random",
    trials: int = 20,
    seed: int = 0,
    resume: bool = False,
    identity: str = "one",
    url: str | None = None,
) -> Ledger:
    """Open a search of the toy space, as `tune` does."""
    return Ledger.open(
        open_storage(url, journal, fresh=not resume),
        "toy",
        {"of": identity},
        Candidates(KNOBS, BINARIES),
        seeds=SEEDS,
        sampler=sampler,
        seed=seed,
        trials=trials,
        resume=resume,
    )


def asked_by(ledger: Ledger) -> Iterator[Asked]:
    """Every trial still to come, told as soon as it is asked for."""
    while batch := ledger.next_batch():
        for asked in batch:
            value = objective_us(asked.config)
            ledger.tell(asked, value, "ok" if value else "spills", None if value else "8 B")
            yield asked


def finish(ledger: Ledger) -> list[Told]:
    """Run a search to its end; everything told, in order, earlier runs' trials included."""
    for _ in asked_by(ledger):
        pass
    return [(asked.config, objective_us(asked.config)) for asked in ledger.told()]


def journal_values(journal: Path) -> list[float]:
    """Objectives in a journal, read without Optuna's help."""
    records = (json.loads(line) for line in journal.read_text().splitlines())
    return [value for record in records for value in record.get("values") or ()]
