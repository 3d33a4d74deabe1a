"""Problems as text, as axes, and as cells; and what is no problem at all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.errors import UnknownChoiceError, UsageError
from autotune.kernels import KERNELS, load_kernel
from autotune.kernels.paged_attention_decode_problem import DecodeProblem
from autotune.problem import AxisValue, Problem, exact, nearest

problems = st.builds(
    DecodeProblem,
    dtype=st.sampled_from(["bf16", "fp16", "fp32"]),
    head_dim=st.integers(1, 512),
    group=st.integers(1, 64),
    block_size=st.sampled_from([16, 32, 48, 64, 128, 256]),
    window=st.integers(0, 2**31),
    softcap=st.floats(0, 1e6, allow_nan=False).map(abs),
    num_kv_heads=st.integers(1, 128),
    num_seqs=st.integers(0, 4096),
    context_len=st.integers(0, 2**20),
)


@given(problems)
def test_a_label_reads_back(problem: DecodeProblem) -> None:
    assert DecodeProblem.parse(problem.label()) == problem


@given(problems)
def test_axes_build_the_same_problem(problem: DecodeProblem) -> None:
    axes = {**problem.exact_axes(), **problem.nearest_axes()}
    assert DecodeProblem.from_axes(axes) == problem
    assert tuple(axes) == DecodeProblem.axis_names()


@given(problems, problems)
def test_points_share_a_cell_exactly_if_their_exact_axes_agree(
    one: DecodeProblem, other: DecodeProblem
) -> None:
    moved = one.at(**other.nearest_axes())
    assert moved.cell() == one.cell()
    assert moved.nearest_axes() == other.nearest_axes()
    assert (one.cell() == other.cell()) == (one.exact_axes() == other.exact_axes())


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernels_default_problem_reads_back(kernel: str) -> None:
    kind = load_kernel(kernel).problem_type
    assert kind.parse("") == kind()
    assert kind.parse(kind().label()) == kind()
    assert kind.kernel == kernel
    assert set(kind.axis_names("exact")).isdisjoint(kind.axis_names("nearest"))


def test_spaces_and_empty_parts_are_allowed() -> None:
    assert DecodeProblem.parse(" head_dim=64 ,, group=2,") == DecodeProblem(head_dim=64, group=2)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("head_dims=64", UnknownChoiceError, "Did you mean head_dim"),
        # Methods and class variables of the type are not axes.
        ("cell=3", UnknownChoiceError, "unknown axis of paged_attention_decode 'cell'"),
        ("kernel=fused_mlp", UnknownChoiceError, "unknown axis"),
        ("head_dim", UsageError, "'head_dim' is not of the form axis=value"),
        ("head_dim=large", UsageError, "head_dim=large must be of type int"),
        ("head_dim=1.5", UsageError, "must be of type int"),
        ("head_dim=-1", UsageError, "head_dim=-1 must not be negative"),
        ("head_dim=0", UsageError, "head_dim=0 must be at least 1"),
        ("group=0", UsageError, "group=0 must be at least 1"),
        ("block_size=0", UsageError, "block_size=0 must be at least 1"),
        ("softcap=-1", UsageError, "softcap=-1.0 must not be negative"),
        ("softcap=nan", UsageError, "softcap=nan must be finite"),
        ("softcap=1e999", UsageError, "softcap=inf must be finite"),
        ("dtype=int3", UnknownChoiceError, "Choices: bf16, fp16, fp32"),
        ("head_dim=64,head_dim=128", UsageError, "head_dim is given twice"),
    ],
)
def test_bad_text_is_refused_with_the_way_out(
    text: str, error: type[UsageError], words: str
) -> None:
    with pytest.raises(error) as caught:
        DecodeProblem.parse(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "axes",
    [
        {"head_dim": True},
        {"head_dim": 64.0},
        {"head_dim": "64"},
        {"head_dim": None},
        {"dtype": 16},
        {"softcap": "50"},
        {"softcap": True},
        {"softcap": None},
        {"softcap": [1.0]},
    ],
)
def test_values_of_another_type_are_refused(axes: dict[str, AxisValue]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(axes))}=.* has the wrong type"):
        DecodeProblem.from_axes(axes)


def test_a_whole_number_will_do_for_a_float_axis_and_gets_the_same_name() -> None:
    problem = DecodeProblem.from_axes({"softcap": 50})
    assert problem == DecodeProblem(softcap=50.0)
    assert problem.label() == DecodeProblem(softcap=50.0).label()
    assert math.isclose(problem.softcap, 50.0)


@pytest.mark.parametrize(("word", "value"), [("true", True), ("1", True), ("False", False)])
def test_switches_are_words_or_digits(word: str, value: bool) -> None:
    kind = load_kernel("dequant_gemm").problem_type
    assert kind.parse(f"zero_point={word}").exact_axes()["zero_point"] is value
    with pytest.raises(UsageError, match="zero_point=maybe must be true or false"):
        kind.parse("zero_point=maybe")


@dataclass(frozen=True)
class Variants(Problem):
    kernel: ClassVar[str] = "variants"

    dtype: str = exact("bf16", "dtype")
    mode: str = exact("plain", "how", ("plain", "fancy"), optional=True)
    extra: bool = exact(False, "whether", optional=True)
    rows: int = nearest(8, "rows")


def test_optional_axes_are_named_where_they_say_something() -> None:
    assert Variants().label() == "dtype=bf16,rows=8"
    assert Variants(extra=True, rows=1).label() == "dtype=bf16,extra=True,rows=1"
    assert Variants(mode="fancy").label("exact") == "dtype=bf16,mode=fancy"
    assert Variants(mode="fancy").label("nearest") == "rows=8"
    assert Variants(mode="fancy").named_axes() == {"dtype": "bf16", "mode": "fancy"}
    assert set(Variants().exact_axes()) == {"dtype", "mode", "extra"}
    for problem in (Variants(), Variants(extra=True), Variants(mode="fancy", extra=True, rows=2)):
        assert Variants.parse(problem.label()) == problem
        assert Variants.from_axes(problem.named_axes()).cell() == problem.cell()
    with pytest.raises(UnknownChoiceError, match="Choices: fancy, plain"):
        Variants.parse("mode=odd")
