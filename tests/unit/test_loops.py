"""Innermost loops of small graphs, drawn by hand: block n's successors stand at place n."""

from __future__ import annotations

import pytest

from autotune.compiler.loops import innermost_loops


@pytest.mark.parametrize(
    ("successors", "loops"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([[1], [2], []], [], id="straight"),
        pytest.param([[1, 2], [3], [3], []], [], id="branch"),
        pytest.param([[1], [1, 2], []], [[1]], id="a block"),
        pytest.param([[1], [2, 3], [1], []], [[1, 2]], id="two blocks"),
        pytest.param([[1], [2], [2, 3], [1, 4], []], [[2]], id="nested"),
        pytest.param([[1], [1, 2], [2, 3], []], [[1], [2]], id="one after the other"),
        pytest.param([[1], [1, 2], [1, 3], []], [[1, 2]], id="two branches back to a header"),
        pytest.param([[2], [2], [3, 4], [1], []], [[1, 2, 3]], id="a block before its header"),
        pytest.param([[1], [4, 2], [1, 3], [], [2]], [[1, 2, 4]], id="a block behind the end"),
        pytest.param([[2], [1], [3], []], [], id="a loop that nothing leads to"),
        pytest.param([[1], [2, 3], [4], [4], [1, 5], []], [[1, 2, 3, 4]], id="a diamond inside"),
    ],
)
def test_innermost_loops(successors: list[list[int]], loops: list[list[int]]) -> None:
    assert sorted(innermost_loops(successors)) == loops
