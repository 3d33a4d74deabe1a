"""What a process has loaded by its start stays, and need not be looked at again."""

from __future__ import annotations

import gc


def freeze_heap() -> None:
    """Take all objects that exist now out of the collector's sight.

    Libraries leave hundreds of thousands of them: each full collection would stop the process to
    visit them all, and garbage would pile up to a quarter of their number before the next one.
    """
    gc.collect()
    gc.freeze()
