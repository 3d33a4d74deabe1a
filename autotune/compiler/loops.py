"""Loops of a control-flow graph."""

from __future__ import annotations

from collections.abc import Sequence


def innermost_loops(successors: Sequence[Sequence[int]]) -> list[list[int]]:
    """The natural loops without another inside, as sorted blocks; block 0 is where control enters.

    A loop is the blocks that lead to a branch back to its header (Aho, Sethi, Ullman 1986, 10.4).
    Branches back are found by a depth-first walk, which for the reducible graphs of structured
    programs are the same ones whichever way it goes: those to a block that dominates theirs.
    """
    predecessors: list[list[int]] = [[] for _ in successors]
    branches_back: dict[int, list[int]] = {}  # header to the blocks that end with them
    seen: set[int] = set()
    path: dict[int, list[int]] = {}  # blocks from the entry to here, with successors not yet walked
    pending = [0] if successors else []
    while pending or path:
        if pending:
            block = pending.pop()
            seen.add(block)
            path[block] = list(successors[block])
        block = next(reversed(path))
        if not path[block]:
            del path[block]
            continue
        following = path[block].pop()
        predecessors[following].append(block)
        if following in path:
            branches_back.setdefault(following, []).append(block)
        elif following not in seen:
            pending.append(following)
    bodies = {header: _body(header, ends, predecessors) for header, ends in branches_back.items()}
    return [
        sorted(body)
        for header, body in bodies.items()
        if not any(other in body for other in bodies if other != header)
    ]


def _body(header: int, ends: Sequence[int], predecessors: Sequence[Sequence[int]]) -> set[int]:
    """What leads to the ends without passing the header, and that."""
    body = {header}
    pending = list(ends)
    while pending:
        block = pending.pop()
        if block not in body:
            body.add(block)
            pending += predecessors[block]
    return body
