"""The official client, which checks every answer against its own models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from live_server import LiveServer

GREEDY: dict[str, Any] = {"temperature": 0, "model": "tiny"}
MESSAGES: Any = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]


def connect(server: LiveServer, *, strict: bool) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{server.url}/v1",
        api_key="none",
        max_retries=0,
        _strict_response_validation=strict,
    )


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with connect(server, strict=True) as found:
        yield found


@pytest.fixture(scope="module")
def lenient(server: LiveServer) -> Iterator[openai.OpenAI]:
    """For the nulls that OpenAI's older API sends, and its own models do not know."""
    with connect(server, strict=False) as found:
        yield found


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny", "alias"]
    assert client.models.retrieve("alias").id == "alias"


def test_completion(client: openai.OpenAI, server: LiveServer) -> None:
    tokenizer = server.engine.tokenizer
    assert tokenizer is not None
    found = client.completions.create(prompt="once upon", max_tokens=8, **GREEDY)
    assert found.object == "text_completion"
    assert found.id.startswith("cmpl-")
    assert found.choices[0].finish_reason == "length"
    assert found.usage is not None
    assert found.usage.prompt_tokens == len(tokenizer.encode("once upon"))
    assert found.usage.completion_tokens == 8
    assert found.usage.total_tokens == found.usage.prompt_tokens + 8
    again = client.completions.create(prompt="once upon", **GREEDY)
    assert again.usage is not None
    assert again.usage.completion_tokens == 16


def test_prompts_of_every_shape(client: openai.OpenAI, server: LiveServer) -> None:
    tokenizer = server.engine.tokenizer
    assert tokenizer is not None
    texts = ["once upon", "the lazy dog"]
    ids = [tokenizer.encode(text) for text in texts]

    def run(prompt: Any, **fields: Any) -> list[str]:
        done = client.completions.create(prompt=prompt, max_tokens=6, **GREEDY, **fields)
        assert [choice.index for choice in done.choices] == list(range(len(done.choices)))
        return [choice.text for choice in done.choices]

    expected = [run(text)[0] for text in texts]
    assert run(ids[0]) == expected[:1]
    assert run(texts) == expected
    assert run(ids) == expected
    assert run(texts, n=2) == [expected[0], expected[0], expected[1], expected[1]]


def test_completion_stream(lenient: openai.OpenAI) -> None:
    whole = lenient.completions.create(prompt="once upon", max_tokens=12, **GREEDY)
    chunks = list(
        lenient.completions.create(
            prompt="once upon",
            max_tokens=12,
            stream=True,
            stream_options={"include_usage": True},
            **GREEDY,
        )
    )
    *body, last = chunks
    assert "".join(chunk.choices[0].text for chunk in body) == whole.choices[0].text
    assert [chunk.choices[0].finish_reason for chunk in body][-1] == "length"
    assert {chunk.choices[0].finish_reason for chunk in body[:-1]} == {None}
    assert all(chunk.usage is None for chunk in body)
    assert last.choices == []
    assert last.usage is not None
    assert whole.usage is not None
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert len({chunk.id for chunk in chunks}) == 1


def test_chat(client: openai.OpenAI) -> None:
    found = client.chat.completions.create(messages=MESSAGES, max_tokens=8, n=2, **GREEDY)
    assert found.id.startswith("chatcmpl-")
    assert [choice.index for choice in found.choices] == [0, 1]
    assert found.choices[0].message.role == "assistant"
    assert found.choices[0].finish_reason == "length"
    assert found.choices[0].message.content == found.choices[1].message.content
    assert found.usage is not None
    assert found.usage.completion_tokens == 16
    newer = client.chat.completions.create(messages=MESSAGES, max_completion_tokens=8, **GREEDY)
    assert newer.choices[0].message.content == found.choices[0].message.content


def test_chat_stream(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(messages=MESSAGES, max_tokens=8, **GREEDY)
    chunks = list(
        client.chat.completions.create(
            messages=MESSAGES,
            max_tokens=8,
            n=2,
            stream=True,
            stream_options={"include_usage": True},
            **GREEDY,
        )
    )
    *body, last = chunks
    for index in (0, 1):
        own = [c.choices[0] for c in body if c.choices[0].index == index]
        assert own[0].delta.role == "assistant"
        assert own[0].delta.content == ""
        assert all(choice.delta.role is None for choice in own[1:])
        assert own[-1].finish_reason == "length"
        assert own[-1].delta.content is None
        text = "".join(choice.delta.content or "" for choice in own)
        assert text == whole.choices[0].message.content
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 16


def test_running_usage(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True, "continuous_usage_stats": True}
    chunks = client.chat.completions.create(
        messages=MESSAGES, max_tokens=3, stream=True, stream_options=options, **GREEDY
    )
    counts = [chunk.usage.completion_tokens for chunk in chunks if chunk.usage is not None]
    assert counts == sorted(counts)
    assert counts[-1] == 3


def test_content_parts(client: openai.OpenAI) -> None:
    parts: Any = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    plain: Any = [{"role": "user", "content": "hello"}]
    texts = [
        client.chat.completions.create(messages=m, max_tokens=6, **GREEDY).choices[0].message
        for m in (parts, plain)
    ]
    assert texts[0].content == texts[1].content


def test_completion_logprobs_with_echo(lenient: openai.OpenAI, server: LiveServer) -> None:
    tokenizer = server.engine.tokenizer
    assert tokenizer is not None
    ids = tokenizer.encode("the lazy dog")
    # What lm-eval asks for.
    found = lenient.completions.create(prompt=ids, max_tokens=1, echo=True, logprobs=1, **GREEDY)
    choice = found.choices[0]
    scores = choice.logprobs
    assert scores is not None
    assert scores.tokens is not None
    assert scores.token_logprobs is not None
    assert scores.top_logprobs is not None
    assert scores.text_offset is not None
    assert choice.text.startswith("the lazy dog")
    assert len(scores.tokens) == len(ids) + 1
    assert scores.token_logprobs[0] is None
    assert all(value is not None and value <= 0 for value in scores.token_logprobs[1:])
    assert "".join(scores.tokens[: len(ids)]) == "the lazy dog"
    assert scores.text_offset[:2] == [0, len(scores.tokens[0])]
    for token, value, top in list(
        zip(scores.tokens, scores.token_logprobs, scores.top_logprobs, strict=True)
    )[1:]:
        assert top[token] == value
        assert max(top.values()) >= value
    bare = lenient.completions.create(prompt=ids, max_tokens=0, echo=True, logprobs=1, **GREEDY)
    assert bare.choices[0].text == "the lazy dog"
    assert bare.usage is not None
    assert bare.usage.completion_tokens == 0
    assert bare.choices[0].logprobs is not None
    assert bare.choices[0].logprobs.token_logprobs == scores.token_logprobs[: len(ids)]


def test_echo_streams_the_prompt_first(lenient: openai.OpenAI) -> None:
    fields: dict[str, Any] = {
        "prompt": "the lazy dog",
        "max_tokens": 5,
        "echo": True,
        "logprobs": 0,
    }
    whole = lenient.completions.create(**fields, **GREEDY).choices[0]
    chunks = list(lenient.completions.create(**fields, stream=True, **GREEDY))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.text
    found = [chunk.choices[0].logprobs for chunk in chunks]
    assert whole.logprobs is not None
    for name in ("tokens", "token_logprobs", "text_offset"):
        joined = [value for scores in found for value in getattr(scores, name)]
        assert joined == getattr(whole.logprobs, name)


def test_chat_logprobs(client: openai.OpenAI) -> None:
    found = client.chat.completions.create(
        messages=MESSAGES, max_tokens=4, logprobs=True, top_logprobs=3, **GREEDY
    )
    scores = found.choices[0].logprobs
    assert scores is not None
    assert scores.content is not None
    assert len(scores.content) == 4
    for entry in scores.content:
        assert len(entry.top_logprobs) == 3
        assert entry.top_logprobs[0].logprob == entry.logprob  # greedy
        assert entry.bytes == list(entry.token.encode())


def test_seed_and_stop(client: openai.OpenAI) -> None:
    hot: dict[str, Any] = {"model": "tiny", "temperature": 1.5, "max_tokens": 30, "prompt": "dog"}
    first = client.completions.create(seed=7, **hot).choices[0]
    assert client.completions.create(seed=7, **hot).choices[0].text == first.text
    assert client.completions.create(seed=8, **hot).choices[0].text != first.text
    stop = first.text[5:7]
    cut = client.completions.create(seed=7, stop=[stop], **hot).choices[0]
    assert cut.finish_reason == "stop"
    assert cut.text == first.text[: first.text.index(stop)]
    assert getattr(cut, "stop_reason", None) == stop


def test_extras_of_vllm(client: openai.OpenAI, server: LiveServer) -> None:
    extras: Any = {
        "top_k": 5,
        "min_p": 0.01,
        "repetition_penalty": 1.1,
        "min_tokens": 3,
        "ignore_eos": True,
        "stop_token_ids": [299],
        "cache_salt": "mine",
        "skip_special_tokens": False,
        "include_stop_str_in_output": True,
        "prompt_logprobs": 1,
    }
    found = client.completions.create(
        prompt="once upon", max_tokens=6, logit_bias={"5": -100}, extra_body=extras, **GREEDY
    )
    assert found.usage is not None
    assert found.usage.completion_tokens >= 3
    raw: Any = getattr(found.choices[0], "prompt_logprobs", None)
    assert raw[0] is None
    assert all(isinstance(entry, dict) for entry in raw[1:])
    forced = client.completions.create(
        prompt="once", max_tokens=3, logit_bias={"40": 100}, **GREEDY
    )
    tokenizer = server.engine.tokenizer
    assert tokenizer is not None
    assert forced.choices[0].text == tokenizer.decode([40] * 3, skip_special_tokens=True)


def test_errors_become_the_client_s(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="other", prompt="x")
    assert missing.value.param == "model"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.completions.create(prompt="x", best_of=2, **GREEDY)
    assert wrong.value.param == "best_of"
