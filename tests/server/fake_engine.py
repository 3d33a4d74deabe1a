"""An engine process without a model: it speaks the protocol, one token per request and step."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

from runtime.server.channel import ChannelClosedError, EngineChannel
from runtime.server.engine_main import die_with
from runtime.server.messages import (
    Abort,
    Accepted,
    Advance,
    Delta,
    EngineFacts,
    EngineGauges,
    LoadFailed,
    Ready,
    Step,
    Submit,
)

FACTS = EngineFacts(
    "none", "none", "none", "none", "Fake", 16, 100, 1000, 8, 8, 1000, 300, False, [], 0.0
)
STEP_S = 0.02


def main() -> int:
    """Serve until the socket is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with(int(sys.argv[2]))
    channel = EngineChannel(socket.socket(fileno=int(sys.argv[1])))
    channel.receive(wait=True)
    mode = os.environ.get("FAKE_ENGINE", "")
    if mode == "refuses":
        channel.send(LoadFailed("no such model", 2))
        return 2
    if mode == "dies":
        return 3
    while mode == "loads":
        time.sleep(0.1)
    channel.send(Ready(FACTS))
    left: dict[str, int] = {}
    try:
        while True:
            for message in channel.receive(wait=not left):
                if isinstance(message, Submit):
                    left[message.request_id] = message.sampling.max_tokens or 100
                    channel.send(Accepted(message.request_id))
                elif isinstance(message, Abort):
                    for name in message.request_ids:
                        left.pop(name, None)
            time.sleep(STEP_S)
            advances = []
            for name in list(left):
                left[name] -= 1
                reason = None if left[name] else "length"
                delta = Delta(0, "x", 1, None, reason)
                advances.append(Advance(name, [delta], reason is not None, 0))
                if reason:
                    del left[name]
            while mode == "hangs" and advances:
                time.sleep(1)
            channel.send(Step(EngineGauges(len(left)), advances))
    except ChannelClosedError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
