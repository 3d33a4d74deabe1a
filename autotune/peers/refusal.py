"""How a peer says that a problem is not for it."""

from __future__ import annotations

from autotune.errors import CandidateError


class PeerError(CandidateError):
    """A peer does not serve this problem; the message says what it lacks."""
