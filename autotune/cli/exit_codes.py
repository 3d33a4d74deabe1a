"""Exit codes that are not an error's own (those stand in `autotune.errors`)."""

from __future__ import annotations

INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""
