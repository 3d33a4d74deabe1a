"""Keys, headers and bodies: what is answered before the application sees a request."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from live_server import LiveServer, served, wait_until

from runtime.server import http_protocol

KEY = "secret-key"


@pytest.fixture(scope="module")
def locked(served_model: Path) -> Iterator[LiveServer]:
    options = {"api_keys": (KEY, "other"), "max_body_bytes": 4096, "body_timeout_s": 0.3}
    with served(served_model, options) as found:
        yield found


def raw(server: LiveServer, data: bytes) -> tuple[int, bytes]:
    """Send bytes; returns the status and the body of the answer."""
    with server.connect() as connection:
        connection.sendall(data)
        found = b""
        while b"\r\n\r\n" not in found or not _is_whole(found):
            more = connection.recv(65536)
            if not more:
                break
            found += more
    head, _, body = found.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def _is_whole(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return False


PATHS = [
    ("GET", "/v1/models"),
    ("GET", "/v1/models/tiny"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    ("GET", "/metrics"),
    ("GET", "/version"),
    ("GET", "/openapi.json"),
    ("GET", "/status"),
    ("GET", "/docs"),
    ("GET", "/no/such/path"),
]
TRICKS = [
    "{}",
    "//{}",
    "/health/..{}",
    "{}/",
    "{}?/health",
    "/health;{}",
    "/health%2f..{}",
    "{}#/health",
]


@pytest.mark.parametrize("host", ["localhost", "a/health?x=", "/health", "127.0.0.1/health#"])
def test_no_route_opens_without_the_key(locked: LiveServer, host: str) -> None:
    for method, path in PATHS:
        for trick in TRICKS:
            target = trick.format(path)
            data = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"
            status, body = raw(locked, data.encode())
            assert status in (400, 401), (target, status)
            assert b'"error"' in body
    absolute = f"GET http://x/health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    assert raw(locked, absolute)[0] in (400, 401)


@pytest.mark.parametrize(
    "given",
    ["", "secret-key", "Bearer", "Bearer wrong", "Basic secret-key", "Bearer secret-ke",
     "Bearer secret-keyy", "Bearer SECRET-KEY", "Bearer secret-key,other"],
)  # fmt: skip
def test_wrong_keys(locked: LiveServer, given: str) -> None:
    answer = locked.get("/v1/models", headers={"authorization": given})
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "AuthenticationError"
    assert answer.headers["www-authenticate"] == "Bearer"


def test_right_keys(locked: LiveServer) -> None:
    for key in (KEY, "other"):
        for scheme in ("Bearer", "bearer"):
            headers = {"authorization": f"{scheme} {key}"}
            assert locked.get("/v1/models", headers=headers).status_code == 200
    twice = [("authorization", "Bearer wrong"), ("authorization", f"Bearer {KEY}")]
    assert locked.get("/v1/models", headers=twice).status_code == 401
    assert locked.get("/health").status_code == 200
    schema = locked.get("/openapi.json", headers={"authorization": f"Bearer {KEY}"}).json()
    assert "security" in schema["paths"]["/v1/completions"]["post"]
    assert "security" not in schema["paths"]["/health"]["get"]


def test_keys_share_no_cached_prefix(locked: LiveServer) -> None:
    """A hit's time would tell one client what another has sent."""
    body = {"prompt": [9, *range(5, 60)], "max_tokens": 1}

    def cached(key: str, **fields: str) -> int:
        headers = {"authorization": f"Bearer {key}"}
        answer = locked.post("/v1/completions", {**body, **fields}, headers=headers).json()
        found: int = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        return found

    assert [cached(KEY), cached("other"), cached(KEY), cached("other")] == [0, 0, 48, 48]
    assert [cached(KEY, cache_salt="x"), cached("other", cache_salt="x")] == [0, 0]
    chat = {"messages": [{"role": "user", "content": "x" * 60}], "max_tokens": 1}
    found = []
    for key in (KEY, "other", KEY):
        headers = {"authorization": f"Bearer {key}"}
        usage = locked.post("/v1/chat/completions", chat, headers=headers).json()["usage"]
        found.append(usage["prompt_tokens_details"]["cached_tokens"] > 0)
    assert found == [False, False, True]


def test_bodies_are_bounded(locked: LiveServer) -> None:
    url, headers = f"{locked.url}/tokenize", {"authorization": f"Bearer {KEY}"}
    headers["content-type"] = "application/json"
    frame = len(json.dumps({"prompt": ""}))
    for size, status in ((4096, 200), (4097, 413)):
        body = json.dumps({"prompt": "a" * (size - frame)}).encode()
        assert httpx.post(url, content=body, headers=headers).status_code == status

        def pieces(whole: bytes = body) -> Iterator[bytes]:
            yield whole[:2000]
            yield whole[2000:]

        assert httpx.post(url, content=pieces(), headers=headers).status_code == status
    found = httpx.post(url, content=b"x" * 5000, headers=headers)
    assert found.json()["error"]["type"] == "RequestTooLargeError"


def test_a_body_that_does_not_come(locked: LiveServer) -> None:
    head = (
        f"POST /tokenize HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    status, body = raw(locked, head.encode())
    assert status == 408
    assert json.loads(body)["error"]["type"] == "RequestTimeoutError"


def test_headers_are_bounded(server: LiveServer) -> None:
    few = {f"x-{i}": "a" for i in range(80)}
    assert server.get("/health", headers=few).status_code == 200
    many = {f"x-{i}": "a" for i in range(110)}
    assert server.get("/health", headers=many).status_code == 431
    for size in (60_000, 70_000):
        data = b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * size + b"\r\n\r\n"
        status, body = raw(server, data)
        assert status == (200 if size < 65_000 else status)
        if size > 65_000:
            assert status in (400, 431)
            assert b'"error"' in body


@pytest.mark.parametrize(
    "data",
    [b"nonsense\r\n\r\n", b"GET / HTTP/nine\r\n\r\n", b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
     b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
     b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
     b"GET /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
)  # fmt: skip
def test_what_is_not_http_gets_a_json_error(server: LiveServer, data: bytes) -> None:
    status, body = raw(server, data)
    assert 400 <= status < 500
    assert json.loads(body)["error"]["code"] == status
    assert server.get("/health").status_code == 200


def test_a_connection_without_a_request_is_closed(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HEADER_TIMEOUT_S", 0.1)
    with server.connect() as connection:
        assert connection.recv(10) == b""


def test_a_connection_that_has_ended_is_forgotten(server: LiveServer) -> None:
    """Its clock would have kept it for half a minute: megabytes, at hundreds in a second."""

    def known() -> int:
        gc.collect()
        # Not isinstance: some objects of libraries answer it with a warning.
        return sum(type(each) is http_protocol.ApiProtocol for each in gc.get_objects())

    before = known()
    for _ in range(10):
        data = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert raw(server, data)[0] == 200
    wait_until(lambda: known() <= before)


def test_ids_are_ours_whatever_a_client_sends(server: LiveServer) -> None:
    headers = {"x-request-id": "same"}
    fields = {"prompt": "a", "max_tokens": 3}
    ids = {server.post("/v1/completions", fields, headers=headers).json()["id"] for _ in range(3)}
    assert len(ids) == 3
    assert not any("same" in name for name in ids)


def test_the_default_address_is_local() -> None:
    code = (
        "import argparse; from runtime.cli import serve; p = argparse.ArgumentParser();"
        "serve.add_arguments(p); print(p.parse_args(['m']).host)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "127.0.0.1"
