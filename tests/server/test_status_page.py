"""The page at `/`: what it may load, what it says without a key, and the figures that it polls."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any

import pytest
from live_server import LiveServer, served

from runtime.server.frontend import ServerStatus
from runtime.server.messages import KernelFact
from runtime.server.status_page import PAGE, describe_status

TEXT = PAGE.read_text(encoding="utf-8")

VOID = {"meta", "link", "line", "path", "input", "br"}
CLOSED_BY_OTHERS = {"th", "td", "option"}


class Reader(HTMLParser):
    """Keeps elements, attributes, and what scripts and styles hold."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inline: dict[str, str] = {}
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID, tag
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self._open[-1] != tag:
            assert self._open.pop() in CLOSED_BY_OTHERS, tag
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("script", "style"):
            self.inline[self._open[-1]] = self.inline.get(self._open[-1], "") + data


@pytest.fixture(scope="module")
def page() -> Reader:
    reader = Reader()
    reader.feed(TEXT)
    reader.close()
    return reader


def test_loads_nothing_from_elsewhere(page: Reader) -> None:
    assert "//" not in re.sub(r"/\*.*?\*/|  // [^\n]*", "", TEXT), "no address of any kind"
    loaders = {"src", "href", "action", "formaction", "srcset", "data", "poster", "background"}
    found = [
        value for _, attrs in page.elements for name, value in attrs.items() if name in loaders
    ]
    assert found == ["data:,"], "an empty icon"
    assert not {"iframe", "object", "embed", "base", "img"} & {tag for tag, _ in page.elements}


def test_has_no_inline_handlers_or_styles(page: Reader) -> None:
    names = {name for _, attrs in page.elements for name in attrs}
    assert not {name for name in names if name.startswith("on") or name == "style"}


def test_puts_text_in_as_text_only(page: Reader) -> None:
    code = page.inline["script"]
    for risk in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "Function(",
    ):
        assert risk not in code
    assert "localStorage" not in code
    assert "sessionStorage" not in code
    assert "cookie" not in code


def test_script_and_page_agree_on_ids(page: Reader) -> None:
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    code = page.inline["script"]
    asked = set(re.findall(r"\b(?:at|show)\(\"([\w-]+)\"", code))
    asked |= set(re.findall(r"\"([\w-]+)\"", re.findall(r"for \(const id of \[(.*?)\]", code)[0]))
    assert asked <= set(ids)
    assert set(ids) - asked == set(), "an element that nothing uses"


def test_policy_admits_its_own_script_and_style_alone(server: LiveServer, page: Reader) -> None:
    answer = server.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    rules = dict(
        rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";")
    )
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    for tag in ("script", "style"):
        digest = b64encode(sha256(page.inline[tag].encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"


def fields_of(code: str) -> set[str]:
    """Names that the script reads off an answer of /status."""
    names = set(re.findall(r"\b(?:answer|before)\.(\w+)", code))
    names |= set(re.findall(r'rate\("(\w+)"\)', code))
    return names - {"error"}


def test_status_has_what_the_page_reads(server: LiveServer, page: Reader) -> None:
    code = page.inline["script"]
    answer = server.get("/status")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    found: dict[str, Any] = answer.json()
    assert fields_of(code) <= found.keys()
    assert set(re.findall(r"\bengine\.(\w+)", code)) <= found["engine"].keys()
    assert found["status"] == "ready"
    assert found["models"] == ["tiny", "alias"]
    assert found["has_text"] is found["has_chat"] is True
    assert found["engine"]["architecture"] == "LlamaForCausalLM"
    assert found["engine"]["kernels"] == []


def test_status_counts_requests(server: LiveServer) -> None:
    before = server.get("/status").json()
    assert server.complete([5, 6, 7], max_tokens=4, ignore_eos=True).status_code == 200
    after = server.get("/status").json()
    gained = {
        name: after[name] - before[name]
        for name in ("num_prompt_tokens", "num_output_tokens", "num_first_tokens", "num_finished")
    }
    assert gained == {
        "num_prompt_tokens": 3,
        "num_output_tokens": 4,
        "num_first_tokens": 1,
        "num_finished": 1,
    }
    assert after["first_token_s"] > before["first_token_s"]
    assert after["time_s"] > before["time_s"]


def test_status_shows_tuned_kernels(server: LiveServer, page: Reader) -> None:
    fact = KernelFact("decode attention", "1-8 sequences", "paged", "exact", "predicted", 1.4)
    server.front.facts.kernels.append(fact)
    try:
        status = describe_status(server.front)
    finally:
        server.front.facts.kernels.remove(fact)
    assert status.engine is not None
    (kernel,) = status.engine.kernels
    assert (kernel.tier, kernel.provenance, kernel.gain) == ("exact", "predicted", 1.4)
    read = set(re.findall(r"\bkernel\.(\w+)", page.inline["script"])) - {"gain"}
    assert read <= kernel.model_dump().keys()


def test_status_is_answered_in_every_state(server: LiveServer) -> None:
    try:
        for status in ServerStatus:
            server.set_status(status)
            assert server.get("/status").json()["status"] == status.value
    finally:
        server.set_status(ServerStatus.READY)


def test_the_page_is_open_and_says_nothing_the_figures_are_closed(served_model: Any) -> None:
    with served(served_model, {"api_keys": ("secret",)}) as locked:
        page = locked.get("/")
        assert page.status_code == 200
        assert page.text == TEXT
        assert locked.get("/status").status_code == 401
        key = {"Authorization": "Bearer secret"}
        assert locked.get("/status", headers=key).json()["status"] == "ready"
        # No other spelling of the open path opens anything.
        for path in ("//", "/./", "/?x=/status", "/%2f", "/;/status", "/status/", "/status/.."):
            answer = locked.get(path)
            assert answer.status_code == 401 or answer.text == TEXT, path
