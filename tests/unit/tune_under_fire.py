"""Kill runs at random moments, resume them, and compare with runs that nobody disturbed.

    python tune_under_fire.py FOLDER RUNS KILLS_PER_RUN

A script of its own, because it forks: a test process has threads. Prints counts as JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from own_folders import Folders
from toy_kernel import FakeBuilder, ToyKernel, ToyProblem, sound, write_templates

from autotune.arch import lookup
from autotune.cell import Cell
from autotune.config import Config
from autotune.deadline import Deadline
from autotune.kernels import KERNELS
from autotune.kernels.spec import KernelSpec
from autotune.problem import Problem
from autotune.progress import Silent
from autotune.records import Evaluation
from autotune.render import TemplateFolder
from autotune.report_cache import ReportCache
from autotune.results import ResultsStore
from autotune.study import SearchOptions
from autotune.tune import tune

A100 = lookup("a100")
CELLS = [Cell(ToyKernel(), A100, problem) for problem in (ToyProblem(), ToyProblem(width=128))]
COMPILING_S = 0.003


class RememberingBuilder(FakeBuilder):
    """Notes every compilation in a file, and remembers it as the real builder does."""

    def __init__(self, templates: TemplateFolder, folders: Folders) -> None:
        super().__init__(A100, templates)
        self._cache = ReportCache(folders.cache, A100, self.environment)
        self._note = folders.cache.parent / "compiled"

    def evaluate(
        self,
        spec: KernelSpec[Any],
        problem: Problem,
        configs: Sequence[Config],
        on_done: Callable[[], None] = lambda: None,
    ) -> list[Evaluation]:
        return [self._evaluation(spec, problem, config) for config in configs]

    def _evaluation(self, spec: KernelSpec[Any], problem: Problem, config: Config) -> Evaluation:
        rendered = self.templates.render(spec, problem, config)
        found = self._cache.get(rendered, config)
        if found is None:
            with self._note.open("a") as note:
                note.write(f"{rendered.digest}\n")
            time.sleep(COMPILING_S)
            found = sound(config)
            self._cache.put(rendered, found)
        return found


def run(folders: Folders, templates: TemplateFolder) -> None:
    """Begin or go on."""
    tune(
        CELLS,
        RememberingBuilder(templates, folders),
        ResultsStore(folders.results),
        folders.studies,
        SearchOptions(trials=24, resume=True),
        Deadline(None),
        Silent(),
    )


def forked(folders: Folders, templates: TemplateFolder, kill_after_s: float | None) -> bool:
    """Whether a run in a process of its own came to its end."""
    child = os.fork()
    if child == 0:
        run(folders, templates)
        os._exit(0)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


def results(folders: Folders) -> bytes:
    return ResultsStore(folders.results).path("a100", "toy").read_bytes()


def main() -> None:
    folder, runs, kills_per_run = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    KERNELS["toy"] = "toy_kernel:ToyKernel"
    templates = write_templates(folder / "templates")
    started = time.monotonic()
    whole = Folders.below(folder / "whole")
    assert forked(whole, templates, None)
    seconds = time.monotonic() - started
    draw = random.Random(7)
    kills = repeated = most_repeated = different = 0
    for number in range(runs):
        other = Folders.below(folder / str(number))
        for _ in range(kills_per_run):
            kills += not forked(other, templates, draw.uniform(0.2, 0.6) * seconds)
        assert forked(other, templates, None)
        compiled = Counter((folder / str(number) / "compiled").read_text().splitlines())
        again = sum(compiled.values()) - len(compiled)
        repeated += again
        most_repeated = max(most_repeated, again)
        different += results(other) != results(whole)
    document = {
        "kills": kills,
        "different": different,
        "compiled_again": repeated,
        "most_compiled_again": most_repeated,
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
