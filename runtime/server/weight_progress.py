"""Tells the front end how much of the weights has been read, now and then."""

from __future__ import annotations

import time

from runtime.server.channel import EngineChannel
from runtime.server.messages import Progress

_EVERY_S = 2.0


class WeightProgress:
    """Takes every tensor's bytes; a line goes out every two seconds."""

    def __init__(self, channel: EngineChannel) -> None:
        self._channel = channel
        self._told_s = time.monotonic()

    def take(self, num_read: int, num_bytes: int) -> None:
        """Say how many bytes of all have been read, unless that was said just now."""
        now_s = time.monotonic()
        if now_s - self._told_s >= _EVERY_S:
            self._told_s = now_s
            share = min(1.0, num_read / num_bytes)
            stage = f"weights {_size(num_read)} of {_size(num_bytes)}, {share:.0%}"
            self._channel.send(Progress(stage))


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"
