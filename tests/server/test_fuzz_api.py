"""Schemathesis, briefly; `make fuzz-server` sends 200 examples to every operation."""

from __future__ import annotations

from fuzz_api import fuzz
from live_server import LiveServer


def test_no_example_breaks_the_server(server: LiveServer) -> None:
    before = server.metric("request_success_total", finished_reason="length")
    found = fuzz(server, 12, phases="fuzzing")
    assert found.returncode == 0, found.stdout[-4000:] + found.stderr[-2000:]
    assert "Tested: 10" in found.stdout
    assert server.metric("request_success_total", finished_reason="length") > before
    assert server.get("/health").status_code == 200
    assert server.front.client.num_live == 0
    assert server.used_blocks() == 0
    server.engine.scheduler.check_integrity()
