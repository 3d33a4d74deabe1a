"""Every mistake gets a 400 that names the field, in OpenAI's shape; bounds hold on both sides."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from live_server import LiveServer

from runtime.server.frontend import ServerStatus

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"


def check_error(answer: Any, status: int, param: str | None = None) -> str:
    assert answer.status_code == status, answer.text[:300]
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == status
    assert error["param"] == param
    assert isinstance(error["message"], str)
    assert error["message"]
    assert "Traceback" not in answer.text
    message: str = error["message"]
    return message


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"best_of": 1}, "best_of"),
    ({"no_such": 1}, "no_such"),
    ({"suffix": "x"}, "suffix"),
    ({"n": 0}, "n"),
    ({"n": 17}, "n"),
    ({"n": "1"}, "n"),
    ({"n": 1.0}, "n"),
    ({"n": True}, "n"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 10**30}, "max_tokens"),
    ({"max_tokens": 5000}, "max_tokens"),
    ({"min_tokens": 20}, "min_tokens"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": 10**400}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.1}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"min_p": 1.5}, "min_p"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"repetition_penalty": 5e-324}, "repetition_penalty"),
    ({"seed": 2**63}, "seed"),
    ({"stop": ["a"] * 5}, "stop"),
    ({"stop": "x" * 257}, "stop"),
    ({"stop": ""}, "stop"),
    ({"stop": [1]}, "stop"),
    ({"stop_token_ids": [320]}, "stop_token_ids"),
    ({"stop_token_ids": [0] * 129}, "stop_token_ids"),
    ({"logprobs": 21}, "logprobs"),
    ({"logprobs": True}, "logprobs"),
    ({"prompt_logprobs": 21}, "prompt_logprobs"),
    ({"logit_bias": {str(i): 0 for i in range(301)}}, "logit_bias"),
    ({"logit_bias": {"320": 1}}, "logit_bias"),
    ({"logit_bias": {"5": 101}}, "logit_bias"),
    ({"logit_bias": {"-1": 1}}, "logit_bias"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"x": True}}, "stream_options.x"),
    ({"stream": "yes"}, "stream"),
    ({"cache_salt": ""}, "cache_salt"),
    ({"cache_salt": "x" * 257}, "cache_salt"),
    ({"echo": 1}, "echo"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG, ids=[json.dumps(f)[:40] for f, _ in WRONG])
def test_a_wrong_field_is_named(server: LiveServer, fields: dict[str, Any], param: str) -> None:
    answer = server.complete(**fields)
    assert answer.status_code == 400, answer.text[:300]
    found = answer.json()["error"]["param"]
    assert found == param or found.startswith(f"{param}."), found
    check_error(answer, 400, found)


@pytest.mark.parametrize(
    "prompt",
    [None, 5, {}, [], "", [""], [[]], ["a", 1], [1, "a"], [[1], "a"], [-1], [320], [[1], [320]],
     ["a"] * 65, [[1]] * 65, [1.5], [True], [[[1]]], "x" * 300_000],
    ids=lambda prompt: repr(prompt)[:40],
)  # fmt: skip
def test_wrong_prompts(server: LiveServer, prompt: Any) -> None:
    answer = server.complete(prompt)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].split(".")[0] == "prompt"


RIGHT: list[dict[str, Any]] = [
    {"n": 16, "max_tokens": 1},
    {"stop": ["a" * 256, "b", "c", "d"]},
    {"logprobs": 20},
    {"logit_bias": {str(i): 0.5 for i in range(300)}},
    {"seed": 2**63 - 1},
    {"seed": -(2**63)},
    {"stop_token_ids": [319]},
    {"cache_salt": "x" * 256},
    {"user": "me", "top_k": -1, "stop": None, "n": None, "logit_bias": None, "max_tokens": None},
    {"temperature": 1, "top_p": 1},
]


@pytest.mark.parametrize("fields", RIGHT, ids=[json.dumps(f)[:40] for f in RIGHT])
def test_the_bounds_themselves_are_taken(server: LiveServer, fields: dict[str, Any]) -> None:
    assert server.complete(**{"max_tokens": 2, **fields}).status_code == 200


def test_as_many_prompts_as_allowed(server: LiveServer) -> None:
    answer = server.complete([[5]] * 32, max_tokens=1)
    assert answer.status_code == 200
    assert len(answer.json()["choices"]) == 32
    # More than seats and queue together: said so, where a 503 would be tried again for ever.
    check_error(server.complete([[5]] * 64, max_tokens=1), 400, "prompt")


CHAT_WRONG: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
    ({"messages": [{"role": "user"}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": "x", "tool_calls": []}]}, "messages.0.tool_calls"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"tool_choice": "auto"}, "tool_choice"),
    ({"functions": []}, "functions"),
    ({"response_format": {"type": "json_object"}}, "response_format.type"),
    ({"chat_template": "{{ 1 }}"}, "chat_template"),
    ({"chat_template_kwargs": {"tools": []}}, "chat_template_kwargs.tools"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"logprobs": 1}, "logprobs"),
    ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
    ({"max_completion_tokens": 5000}, "max_completion_tokens"),
    ({"audio": {}}, "audio"),
    ({"modalities": ["audio"]}, "modalities.0"),
    ({"store": True}, "store"),
    ({"echo": True}, "echo"),
]


@pytest.mark.parametrize(("fields", "param"), CHAT_WRONG)
def test_a_wrong_chat_field_is_named(
    server: LiveServer, fields: dict[str, Any], param: str
) -> None:
    answer = server.chat(**fields) if "messages" not in fields else server.post(CHAT, fields)
    check_error(answer, 400, param)


def test_nothing_is_fetched_for_anyone(server: LiveServer) -> None:
    url = {"type": "image_url", "image_url": {"url": f"{server.url}/health"}}
    before = server.front.client.num_live
    answer = server.post(CHAT, {"messages": [{"role": "user", "content": [url]}]})
    assert answer.status_code == 400
    assert server.front.client.num_live == before


BAD_JSON = [
    b"",
    b"{",
    b"nonsense",
    b'{"prompt": "a", "prompt": "b"}',
    b'{"prompt": "a", "temperature": NaN}',
    b'{"prompt": "a", "temperature": Infinity}',
    b'{"prompt": "a", "temperature": 1e999}',
    b'{"prompt": "\\ud800"}',
    b'{"prompt": "a", "stop": "\\uDC00x"}',
    b'{"prompt": "a", "cache_salt": "\\udfff"}',
    b'{"prompt": "\xff"}',
    b"[" * 200_000,
    b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}",
    b'{"prompt": "a"} x',
    b"[]",
    b"null",
    b'"text"',
    b"\xef\xbb\xbf{}",
    b"{" + b",".join(b'"k%d": 1' % i for i in range(600)) + b"}",
]


@pytest.mark.parametrize("body", BAD_JSON, ids=[repr(b[:40]) for b in BAD_JSON])
def test_bad_json(server: LiveServer, body: bytes) -> None:
    answer = httpx.post(
        server.url + COMPLETIONS, content=body, headers={"content-type": "application/json"}
    )
    check_error(answer, 400, answer.json()["error"]["param"])
    assert len(answer.content) < 3000


def test_nul_and_astral_characters_are_text(server: LiveServer) -> None:
    assert server.complete("a\x00b\U0001f600", max_tokens=1).status_code == 200


def test_errors_do_not_grow_with_the_request(server: LiveServer) -> None:
    bodies: list[dict[str, Any]] = [
        {"prompt": [["x" * 100] * 2000]},
        {"prompt": "a", **{f"{'k' * 200}{i}": 1 for i in range(200)}},
        {"prompt": "a", "user": "u" * 50_000},
        {"prompt": [{"a": 1}] * 5000},
    ]
    for body in bodies:
        answer = server.post(COMPLETIONS, body)
        assert answer.status_code == 400
        assert len(answer.content) < 3000


def test_wrong_content_types(server: LiveServer) -> None:
    for headers in ({"content-type": "text/plain"}, {}, {"content-type": "multipart/form-data"}):
        answer = httpx.post(server.url + COMPLETIONS, content=b'{"prompt":"a"}', headers=headers)
        check_error(answer, 415)


def test_wrong_paths_and_methods(server: LiveServer) -> None:
    check_error(server.get("/nothing"), 404)
    check_error(server.get("/v1/models/nothing"), 404, "model")
    check_error(server.get(COMPLETIONS), 405)
    check_error(httpx.delete(f"{server.url}/v1/models"), 405)
    check_error(server.get("/v1/models/"), 404, "model")


def test_states_of_the_server(server: LiveServer) -> None:
    try:
        for status in (ServerStatus.LOADING, ServerStatus.DRAINING):
            server.set_status(status)
            for answer in (server.complete(), server.get("/health")):
                check_error(answer, 503)
                assert int(answer.headers["retry-after"]) >= 1
        server.set_status(ServerStatus.DEAD)
        check_error(server.complete(), 500)
        check_error(server.get("/health"), 503)
    finally:
        server.set_status(ServerStatus.READY)
    assert server.get("/health").status_code == 200


def test_tokenize_and_back(server: LiveServer) -> None:
    text = "once upon a time, ünïcödé"
    found = server.post("/tokenize", {"prompt": text, "return_token_strs": True}).json()
    assert found["count"] == len(found["tokens"]) == len(found["token_strs"])
    assert found["max_model_len"] == 2048
    assert server.post("/detokenize", {"tokens": found["tokens"]}).json() == {"prompt": text}
    messages = [{"role": "user", "content": "hi"}]
    chat = server.post("/tokenize", {"messages": messages}).json()["tokens"]
    assert server.post("/detokenize", {"tokens": chat}).json()["prompt"] == "<user>hi<assistant>"
    check_error(server.post("/tokenize", {}), 400, "prompt")
    check_error(server.post("/tokenize", {"prompt": "a", "messages": messages}), 400, "prompt")
    check_error(server.post("/detokenize", {"tokens": [320]}), 400, "tokens")


def test_padding_ids_are_safe(server: LiveServer) -> None:
    """Ids from the tokenizer's size to the logits' width are the model's, and disturb nobody."""
    plain = server.complete(max_tokens=8, temperature=0, logprobs=1).json()["choices"]
    answer = server.complete([310, 319], max_tokens=4, logit_bias={"315": 100}, logprobs=1)
    assert answer.status_code == 200
    assert server.complete(max_tokens=8, temperature=0, logprobs=1).json()["choices"] == plain


def test_adversarial_stop_strings_cost_little(server: LiveServer) -> None:
    stops = ["a" * 255 + "b", "a" * 254 + "bb", "aab" * 80, "a" * 256]
    answer = server.complete("a" * 1500, stop=stops, max_tokens=100, ignore_eos=True)
    assert answer.status_code == 200


def test_version_and_schema(server: LiveServer) -> None:
    assert server.get("/version").json().keys() == {"version"}
    schema = server.get("/openapi.json").json()
    assert schema["paths"].keys() == {
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/models",
        "/v1/models/{model}",
        "/tokenize",
        "/detokenize",
        "/health",
        "/version",
        "/metrics",
        "/status",
    }
    assert "422" not in json.dumps(schema)


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 5e-324},
        {"temperature": 1e-40, "top_k": 3, "min_p": 0.1},
        {"temperature": 100, "top_p": 5e-324},
        {"repetition_penalty": 0.01, "presence_penalty": 2},
        {"repetition_penalty": 100, "frequency_penalty": -2},
        {"logit_bias": {str(i): -100 for i in range(300)}},
    ],
)
def test_extreme_parameters_disturb_nobody(server: LiveServer, fields: dict[str, Any]) -> None:
    answer = server.complete(max_tokens=12, ignore_eos=True, **fields)
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] == 12
    assert server.get("/health").status_code == 200
