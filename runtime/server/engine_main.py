"""Entry of the engine process: `python -m runtime.server.engine_main SOCKET PARENT`.

It holds on to nothing: when the front end closes the socket it leaves, and when the front end dies
the kernel kills it, in the middle of a step as well.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.engine import LLMEngine
    from runtime.server.messages import EngineFacts

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies; leaves at once if it has already."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def main(arguments: list[str]) -> int:
    """Serve the socket whose number is given; returns the exit code."""
    # Signals are the front end's to answer: it drains, then closes the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    number, parent = map(int, arguments)
    die_with(parent)
    connection = socket.socket(fileno=number)
    # Heavy imports come only now, under the protection above.
    from runtime.errors import EngineError
    from runtime.server.channel import ChannelClosedError, EngineChannel
    from runtime.server.heap import freeze_heap
    from runtime.server.messages import (
        Configure,
        LoadFailed,
        Progress,
        Ready,
        unpack_config,
    )

    channel = EngineChannel(connection)
    try:
        (message,) = channel.receive(wait=True)
        assert isinstance(message, Configure), "the configuration comes first"
        config = unpack_config(message)
        channel.send(Progress("importing torch"))
        from runtime.engine import LLMEngine
        from runtime.server.engine_loop import EngineLoop
        from runtime.server.weight_progress import WeightProgress

        start_s = time.monotonic()
        channel.send(Progress(f"loading {config.model}"))
        try:
            engine = LLMEngine(config, on_read=WeightProgress(channel).take)
        except EngineError as error:
            channel.send(LoadFailed(str(error), error.exit_code))
            return error.exit_code
        freeze_heap()
        channel.send(Ready(describe(engine, time.monotonic() - start_s)))
        EngineLoop(engine, channel, message.max_queued_tokens).run()
    except ChannelClosedError:
        return 0
    return 0


def describe(engine: LLMEngine, load_s: float) -> EngineFacts:
    """Introduce a loaded engine."""
    from runtime.explain import explain
    from runtime.scheduler_config import SchedulingPolicy
    from runtime.server.messages import EngineFacts, KernelFact

    limits = engine.scheduler.config
    found = explain(engine.plan)
    return EngineFacts(
        device=found.device,
        dtype=found.dtype,
        kv_dtype=found.kv_dtype,
        operations=found.ops,
        architecture=engine.model_config.architecture,
        block_size=limits.block_size,
        num_blocks=engine.scheduler.stats().num_usable_blocks,
        max_model_len=limits.max_model_len,
        max_num_seqs=limits.max_num_seqs,
        max_queue_len=limits.max_queue_len,
        max_pool_tokens=limits.max_pool_tokens,
        vocab_size=engine.model_config.vocab_size,
        has_priorities=limits.policy is SchedulingPolicy.PRIORITY,
        kernels=[
            KernelFact(row.operation, row.sizes, row.kernel, row.tier, row.provenance, row.gain)
            for row in found.kernels
            if row.tier is not None
        ],
        load_s=load_s,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
