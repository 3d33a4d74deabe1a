"""Which window a mask rule means; a rule that is neither causal nor a causal window is refused."""

from __future__ import annotations

import torch

from runtime.errors import UnsupportedModelError
from runtime.generic.interface import Rule


def read_window(rule: Rule, declared: int | None, where: str) -> int | None:
    """Return the tokens that a token looks back on, itself included; None for all.

    The rule is asked, at places where causal masks, windows and chunks of any length differ.

    Args:
        rule: of the mask.
        declared: the window that the model's configuration names, if any.
        where: names the layer in errors.

    Raises:
        UnsupportedModelError: it is another pattern (chunks, two directions, sinks, ...).
    """
    for window in (None, declared):
        if _agrees(rule, window):
            return window
    raise UnsupportedModelError(
        f"{where}: the attention mask is neither causal nor a causal window"
        f"{'' if declared is None else f' of {declared}'} (it may be chunked or bidirectional), "
        "which paged attention has no form of"
    )


def _agrees(rule: Rule, window: int | None) -> bool:
    # A chunk or a window that these places do not tell from a causal mask is longer than all of
    # them, and than any context; the steps of 997 fall into every chunk but at its edge.
    size = window or 1
    for query in (0, 1, 2, 3, size - 1, size, size + 1, 2 * size, 3 * size + 1, 99_991, 4_000_037):
        near = torch.arange(max(0, query - 40), query + 40)
        edge = torch.arange(max(0, query - size - 40), max(0, query - size + 40))
        far = torch.arange(0, query, 997)
        keys = torch.cat((near, edge, far))
        expected = keys <= query
        if window is not None:
            expected &= keys > query - window
        answer = _ask(rule, query, keys)
        if answer is None or not torch.equal(answer, expected):
            return False
    return True


def _ask(rule: Rule, query: int, keys: torch.Tensor) -> torch.Tensor | None:
    queries = torch.full_like(keys, query)
    try:
        return torch.as_tensor(rule(0, 0, queries, keys)).expand(keys.shape)
    except (RuntimeError, IndexError):
        return None  # it looks things up in tensors of one call: not a rule for any length
