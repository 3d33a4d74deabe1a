"""What travels between front end and engine arrives as it was sent."""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path

import msgspec
import pytest

from runtime.config import EngineConfig
from runtime.errors import InvalidParameterError
from runtime.preemption import PreemptionMode
from runtime.sampling_params import BeamSearchParams, SamplingParams
from runtime.scheduler_config import SchedulingPolicy
from runtime.server.channel import ChannelClosedError, EngineChannel, frame
from runtime.server.messages import (
    Abort,
    Advance,
    Delta,
    EngineGauges,
    Step,
    Submit,
    ToEngine,
    TokenScore,
    decode_from_engine,
    decode_to_engine,
    encode,
    pack_config,
    unpack_config,
)

CONFIG = EngineConfig(
    Path("some/model"),
    block_size=8,
    policy=SchedulingPolicy.PRIORITY,
    preemption_mode=PreemptionMode.SWAP,
    cudagraph_capture_sizes=(1, 4),
    long_prefill_token_threshold=3,
)


@pytest.mark.parametrize("config", [CONFIG, EngineConfig(Path("m"))])
def test_configurations_arrive_whole(config: EngineConfig) -> None:
    data = encode(pack_config(config, 7))
    message = decode_to_engine(data)
    assert message == pack_config(config, 7)
    assert unpack_config(message) == config
    for field in dataclasses.fields(config):
        given, arrived = (getattr(c, field.name) for c in (config, unpack_config(message)))
        assert type(arrived) is type(given), field.name


def test_requests_and_steps_arrive_whole() -> None:
    params = SamplingParams(stop=("a",), logit_bias={3: 1.5}, seed=-1, stop_token_ids=(4,))
    beams = BeamSearchParams(3)
    messages: list[ToEngine] = [
        Submit("r", [1, 2], params, None, -3, "salt"),
        Submit("r", [1, 2], SamplingParams(), beams),
        Abort(["r"]),
    ]
    assert [decode_to_engine(encode(m)) for m in messages] == messages
    scores = [TokenScore(1, "x", -0.5, 1)]
    delta = Delta(0, "text", 1, [scores], "stop", "a")
    step = Step(EngineGauges(1, 2), [Advance("r", [delta], True, 16, [None, scores])], [("q", "e")])
    assert decode_from_engine(encode(step)) == step


def test_sampling_parameters_are_checked_again() -> None:
    good = msgspec.msgpack.encode(["Submit", "r", [1], {"n": 1}])
    assert isinstance(decode_to_engine(good), Submit)
    for bad in ({"n": 0}, {"n": "1"}):
        with pytest.raises((msgspec.ValidationError, InvalidParameterError)):
            decode_to_engine(msgspec.msgpack.encode(["Submit", "r", [1], bad]))


def test_frames_survive_any_cut() -> None:
    ours, theirs = socket.socketpair()
    channel = EngineChannel(theirs)
    assert channel.receive(wait=False) == []
    data = b"".join(frame(encode(Abort([str(n)]))) for n in range(3))
    ours.sendall(data[: len(data) // 3 * 2])
    ours.sendall(data[len(data) // 3 * 2 :])
    found: list[ToEngine] = []
    while len(found) < 3:
        found.extend(channel.receive(wait=True))
    assert found == [Abort(["0"]), Abort(["1"]), Abort(["2"])]
    ours.close()
    with pytest.raises(ChannelClosedError):
        channel.receive(wait=True)
    theirs.close()
