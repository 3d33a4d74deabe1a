"""Which stored selection serves which problem, and what happens where none can."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
from own_folders import Folders
from record_cases import make_selection, sha
from toy_kernel import ToyKernel, ToyProblem, sound

from autotune.arch import GpuArch, lookup
from autotune.config import Config
from autotune.errors import UnknownChoiceError
from autotune.kernels import KERNELS
from autotune.kernels.paged_attention_decode import PagedAttentionDecode
from autotune.kernels.paged_attention_decode_problem import DecodeProblem
from autotune.knob import Constraint
from autotune.records import Environment, Provenance, Selection, Timing
from autotune.registry import Tier, TunedKernels, kernel_spec
from autotune.results import CellResult, ResultsStore
from autotune.space import SearchSpace

KERNEL = "paged_attention_decode"
CELL = DecodeProblem(block_size=32)
SPEC, A100 = PagedAttentionDecode(), lookup("a100")
PREDICTED, MEASURED = Provenance.PREDICTED, Provenance.MEASURED


def some_config(problem: DecodeProblem, number: int) -> Config:
    """Legal configurations that are not the default, told apart by number."""
    default = SPEC.default_config(problem, A100)
    return [config for config in SPEC.space(problem, A100).legal if config != default][number]


def save(
    folder: Path,
    exact: DecodeProblem | ToyProblem,
    selections: Sequence[Selection],
    gpu: str = "a100",
) -> None:
    """Write one cell as `autotune run` does."""
    cell = CellResult(
        exact=exact.exact_axes(),
        template_sha=sha("template"),
        environment=Environment("3.6.0", "ptxas 13.1.80"),
        search={},
        selections=tuple(selections),
    )
    ResultsStore(folder).merge(gpu, exact.kernel, [cell])


def at(num_seqs: int, number: int, provenance: Provenance = MEASURED) -> Selection:
    """Selection of configuration `number` at a batch size."""
    point = CELL.at(num_seqs=num_seqs)
    return make_selection(point, provenance=provenance, config=some_config(CELL, number))


def test_the_exact_point_is_used(folders: Folders) -> None:
    save(folders.results, CELL, [at(8, 0), at(16, 1)])
    resolved = TunedKernels.load("a100").resolve(KERNEL, CELL.at(num_seqs=16))
    assert (resolved.tier, resolved.config) == (Tier.EXACT, some_config(CELL, 1))
    assert resolved.selection is not None
    assert resolved.selection.nearest["num_seqs"] == 16
    assert "measured on a100" in resolved.source


@pytest.mark.parametrize(("num_seqs", "number"), [(1, 0), (9, 0), (12, 1), (40, 1), (10_000, 2)])
def test_else_the_nearest_in_doublings(folders: Folders, num_seqs: int, number: int) -> None:
    save(folders.results, CELL, [at(8, 0), at(16, 1), at(128, 2)])
    resolved = TunedKernels.load("a100").resolve(KERNEL, CELL.at(num_seqs=num_seqs))
    assert (resolved.tier, resolved.config) == (Tier.NEAREST, some_config(CELL, number))


def test_else_the_same_architecture(folders: Folders) -> None:
    save(folders.results, CELL, [at(8, 0)], gpu="a100-40gb")
    save(folders.results, CELL, [at(8, 1)], gpu="h100")
    resolved = TunedKernels.load("a100").resolve(KERNEL, CELL.at(num_seqs=8))
    assert (resolved.tier, resolved.config) == (Tier.SAME_ARCHITECTURE, some_config(CELL, 0))
    assert "a100-40gb" in resolved.source


def test_measured_elsewhere_beats_predicted_here(folders: Folders) -> None:
    save(folders.results, CELL, [at(8, 0, PREDICTED)])
    assert TunedKernels.load("a100").resolve(KERNEL, CELL).tier is Tier.PREDICTED
    save(folders.results, CELL, [at(8, 1)], gpu="a100-40gb")
    resolved = TunedKernels.load("a100").resolve(KERNEL, CELL.at(num_seqs=8))
    assert (resolved.tier, resolved.config) == (Tier.SAME_ARCHITECTURE, some_config(CELL, 1))


def test_measured_here_at_other_sizes_beats_both(folders: Folders) -> None:
    save(folders.results, CELL, [at(8, 0, PREDICTED), at(512, 1)])
    save(folders.results, CELL, [at(8, 2)], gpu="a100-40gb")
    resolved = TunedKernels.load("a100").resolve(KERNEL, CELL.at(num_seqs=8))
    assert (resolved.tier, resolved.config) == (Tier.NEAREST, some_config(CELL, 1))


@pytest.mark.parametrize("num_seqs", [1, 8, 256])
def test_else_the_default_for_these_very_sizes(folders: Folders, num_seqs: int) -> None:
    stored = CELL.at(num_seqs=256)
    save(folders.results, CELL, [make_selection(stored, provenance=Provenance.DEFAULT)])
    problem = CELL.at(num_seqs=num_seqs, num_kv_heads=1)
    for tuned in (TunedKernels.load("a100"), TunedKernels.load("mi300x")):
        resolved = tuned.resolve(KERNEL, problem)
        assert resolved.tier is Tier.DEFAULT
        assert resolved.selection is None
        assert resolved.config == SPEC.default_config(problem, tuned.arch)


def test_exact_axes_have_to_agree(folders: Folders) -> None:
    save(folders.results, CELL, [at(8, 0)])
    tuned = TunedKernels.load("a100")
    for other in (DecodeProblem(block_size=64), DecodeProblem(block_size=32, dtype="fp16")):
        assert tuned.resolve(KERNEL, other).tier is Tier.DEFAULT


def test_own_results_come_before_shipped_ones(tmp_path: Path) -> None:
    own, shipped = tmp_path / "own", tmp_path / "shipped"
    save(own, CELL, [at(8, 0)])
    save(shipped, CELL, [at(8, 1), at(64, 2)])
    tuned = TunedKernels(A100, [own, shipped], tmp_path, tmp_path)
    assert tuned.resolve(KERNEL, CELL.at(num_seqs=8)).config == some_config(CELL, 0)
    assert tuned.resolve(KERNEL, CELL.at(num_seqs=64)).config == some_config(CELL, 2)


def test_a_corrupt_file_costs_the_tuning_not_the_start(
    folders: Folders, caplog: pytest.LogCaptureFixture
) -> None:
    save(folders.results, CELL, [at(8, 0)])
    path = ResultsStore(folders.results).path("a100", KERNEL)
    path.write_bytes(path.read_bytes()[:-100])
    save(folders.results, CELL, [at(8, 1)], gpu="a100-40gb")
    with caplog.at_level(logging.WARNING):
        tuned = TunedKernels.load("a100")
    assert len(tuned.refused) == 1
    assert str(path) in tuned.refused[0]
    assert tuned.refused[0] in caplog.text
    assert tuned.resolve(KERNEL, CELL).tier is Tier.SAME_ARCHITECTURE


class WideKernel(ToyKernel):
    """Tiles may not be wider than the GPU has SMs: siblings differ in what is legal."""

    def space(self, problem: ToyProblem, arch: GpuArch) -> SearchSpace:
        space = super().space(problem, arch)
        limit = arch.sm_count
        rule = Constraint("wider than the GPU", ("tile",), lambda tile: tile <= limit)
        return SearchSpace(space.knobs, (*space.constraints, rule))


def test_legality_is_checked_again_on_this_gpu(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KERNELS, "toy", "test_registry:WideKernel")
    problem = ToyProblem()
    config = ToyKernel().default_config(problem, A100).replace(tile=128)
    selection = Selection(
        exact=problem.exact_axes(),
        nearest=problem.nearest_axes(),
        config=config,
        provenance=MEASURED,
        time_us=2.0,
        error_factor=None,
        default_us=3.0,
        floor_us=1.0,
        reason="measured",
        reports=sound(config).reports,
        timing=Timing(2.0, 1.9, 2.1, 20),
    )
    save(folders.results, problem, [selection], gpu="h100")
    assert TunedKernels.load("h100").resolve("toy", problem).config == config
    assert TunedKernels.load("h200").resolve("toy", problem).tier is Tier.SAME_ARCHITECTURE
    smaller = TunedKernels.load("h100-pcie").resolve("toy", problem)
    assert smaller.tier is Tier.DEFAULT
    assert smaller.config["tile"] == 32


def test_every_choice_is_logged(folders: Folders, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        TunedKernels.load("a100").resolve(KERNEL, CELL)
    assert "tier default" in caplog.text
    assert CELL.label("exact") in caplog.text


def test_binding_renders_and_imports(folders: Folders) -> None:
    save(folders.results, CELL, [at(8, 3)])
    bound = TunedKernels.load("a100").bind(KERNEL, CELL.at(num_seqs=8))
    assert bound.resolved.tier is Tier.EXACT
    assert callable(bound.launch)
    source = Path(inspect.getfile(inspect.unwrap(bound.launch)))
    assert source.is_relative_to(folders.cache)
    assert str(some_config(CELL, 3)) in source.read_text()


def save_times(
    folder: Path, block_size: int, times: Sequence[float], provenance: Provenance = MEASURED
) -> None:
    """One cell, at batches of 1, 2, ..."""
    cell = DecodeProblem(block_size=block_size)
    points = (cell.at(num_seqs=number + 1) for number in range(len(times)))
    made = [
        make_selection(point, time_us=time_us, provenance=provenance)
        for point, time_us in zip(points, times, strict=True)
    ]
    save(folder, cell, made)


def test_block_sizes_and_their_times(folders: Folders) -> None:
    save_times(folders.results, 16, (100.0, 400.0))
    save_times(folders.results, 64, (90.0, 160.0))
    save(folders.results, CELL, [at(8, 0)], gpu="a100-40gb")
    tuned = TunedKernels.load("a100")
    found = tuned.block_sizes(KERNEL, CELL.exact_axes())
    assert found is not None
    assert found.provenance is MEASURED
    assert found.mean_us == pytest.approx({16: 200.0, 64: 120.0})
    assert tuned.block_sizes(KERNEL, DecodeProblem(dtype="fp16").exact_axes()) is None


def test_block_sizes_are_compared_at_common_points(folders: Folders) -> None:
    save_times(folders.results, 16, (100.0, 400.0, 9000.0))
    save_times(folders.results, 64, (90.0, 160.0))
    found = TunedKernels.load("a100").block_sizes(KERNEL, CELL.exact_axes())
    assert found is not None
    assert found.mean_us == pytest.approx({16: 200.0, 64: 120.0})


def test_measured_block_sizes_are_not_compared_with_predicted_ones(folders: Folders) -> None:
    save_times(folders.results, 16, (100.0,))
    save_times(folders.results, 64, (1.0,), PREDICTED)
    found = TunedKernels.load("a100").block_sizes(KERNEL, CELL.exact_axes())
    assert found is not None
    assert (found.provenance, list(found.mean_us)) == (MEASURED, [16])


def test_unknown_names_list_the_choices() -> None:
    with pytest.raises(UnknownChoiceError, match="a100"):
        TunedKernels.load("a1000")
    with pytest.raises(UnknownChoiceError, match=KERNEL):
        TunedKernels.load("a100").resolve("paged_attention", CELL)
    assert kernel_spec(KERNEL).problem_type is DecodeProblem
