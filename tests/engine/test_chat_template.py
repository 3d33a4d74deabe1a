"""Chat templates render as transformers renders them, and cannot run away or reach out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chat_templates import CHATML, MODEL_TURNS, TEMPLATES
from tiny_tokenizer import save_tokenizer
from transformers import AutoTokenizer

from runtime.chat_template import ChatTemplate
from runtime.errors import ChatRefusedError, ChatTemplateError, ModelFolderError

USER: dict[str, Any] = {"role": "user", "content": " What is <b>ünïcode</b>?\n"}
SYSTEM = {"role": "system", "content": "Be brief."}
ANSWER = {"role": "assistant", "content": "<think>hm</think>\nText.", "reasoning": " I know. "}
PARTS = {
    "role": "user",
    "content": [{"type": "image"}, {"type": "text", "text": "a<b"}, {"type": "text", "text": "!"}],
}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"function": {"name": "look", "arguments": {"at": "ø & <x>"}}}],
}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CHATS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "one turn": ([USER], {}),
    "system": ([SYSTEM, USER], {}),
    "answered": ([USER, ANSWER], {"add_generation_prompt": False}),
    "several": ([USER, ANSWER, USER, {**ANSWER, "tool_calls": None}, USER], {}),
    "no thinking": ([USER], {"enable_thinking": False}),
    "parts": ([PARTS], {}),
    "tools": ([USER, CALL, {"role": "tool", "content": "42"}], {"tools": [TOOL]}),
    "misplaced": ([ANSWER, ANSWER], {}),
}
REFUSED: dict[str, set[str]] = {
    "chatml": set(),
    "brackets": {"parts", "tools", "misplaced"},
    "headers and tools": set(),
    "thinking": {"parts"},
    "model turns": {"system"},
}
REASON = "must alternate|not supported|has no attribute|can only concatenate"


def save(folder: Path, template: Any) -> Path:
    save_tokenizer(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "chat_template": template}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_renders_as_transformers_does(tmp_path: Path, name: str, chat: str) -> None:
    folder = save(tmp_path, TEMPLATES[name])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    messages, options = CHATS[chat]
    options = {"add_generation_prompt": True, **options}
    template = ChatTemplate.load(folder)
    if chat in REFUSED[name]:
        with pytest.raises(Exception, match=REASON) as theirs:
            tokenizer.apply_chat_template(messages, tokenize=False, **options)
        with pytest.raises(ChatRefusedError) as ours:
            template.render(messages, **options)
        assert str(theirs.value) in str(ours.value)
        return
    expected = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    assert expected.strip()
    assert template.render(messages, **options) == expected


@pytest.mark.parametrize("as_files", [True, False])
def test_named_templates_and_files(tmp_path: Path, as_files: bool) -> None:
    texts = {
        "default": "plain {{ eos_token }}",
        "tool_use": "{{ tools | length }} tools",
        "rag": "r",
    }
    if as_files:
        folder = save(tmp_path, "a stale one")
        (folder / "chat_template.jinja").write_text(texts.pop("default"), encoding="utf-8")
        (folder / "additional_chat_templates").mkdir()
        for name, text in texts.items():
            path = folder / "additional_chat_templates" / f"{name}.jinja"
            path.write_text(text, encoding="utf-8")
    else:
        folder = save(tmp_path, [{"name": n, "template": t} for n, t in texts.items()])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    template = ChatTemplate.load(folder)
    for options, expected in (({}, "plain </s>"), ({"tools": [TOOL]}, "1 tools")):
        assert template.render([USER], **options) == expected
        assert tokenizer.apply_chat_template([USER], tokenize=False, **options) == expected


def test_tokens_of_older_folders(tmp_path: Path) -> None:
    (tmp_path / "special_tokens_map.json").write_text(
        '{"bos_token": {"content": "<a>", "lstrip": false}, "eos_token": "<z>"}', encoding="utf-8"
    )
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token ~ eos_token }}", encoding="utf-8")
    assert ChatTemplate.load(tmp_path).render([USER]) == "<a><z>"


def test_the_callers_messages_stay_as_they_are() -> None:
    messages = [{"role": "user", "content": ["a"]}]
    template = ChatTemplate({"default": "{{ messages[0].content.append('b') }}"}, {}, "here")
    with pytest.raises(ChatRefusedError, match="SecurityError"):
        template.render(messages)
    assert messages == [{"role": "user", "content": ["a"]}]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{{ raise_exception.__globals__ }}{{ x.y }}", "UndefinedError|SecurityError"),
        ("{{ cycler.__init__.__globals__.os.popen('id') }}", "SecurityError"),
        ("{{ messages.__init__.__globals__ }}", "SecurityError"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{% import '/etc/passwd' as p %}", "no loader"),
        ("{% set n = namespace(_x=1) %}", "underscore"),
        ("{% set n = namespace(self=1) %}{% set n._x = 1 %}", "underscore"),
        ("{{ messages[0]['content'] + 1 }}", "cannot render these messages: TypeError"),
        ("{{ nothing.at.all }}", "UndefinedError"),
        ("{{ raise_exception('only text') }}", "refuses these messages: only text"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{% for i in range(999999999) %}{% endfor %}", "OverflowError"),
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "more than 1000000 steps",
        ),
        (
            "{% for i in range(9999) %}{% for j in range(9999) if j > i %}{% endfor %}{% endfor %}",
            "more than 1000000 steps",
        ),
        (
            "{% for i in range(9999) %}{% for j in range(9999) | map('string') %}{% endfor %}"
            "{% endfor %}",
            "more than 1000000 steps",
        ),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        (
            "{% macro f(n) %}{% if n %}{{ f(n-1) ~ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
            "more than 1000000 steps",
        ),
        ("{{ 'abc' * 999999999 }}", "more than 8388608 characters"),
        ("{{ [1] * 999999999 }}", "more than 8388608 characters"),
        ("{{ 9999999 * 'ab' }}", "more than 8388608 characters"),
        ("{{ 10 ** 999999999 }}", "exponents"),
        (
            "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}"
            "{% endfor %}",
            "more than 8388608 characters",
        ),
        (
            "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}"
            "{% endfor %}",
            "more than 8388608 characters",
        ),
        (
            "{% for i in range(99) %}{{ 'a' * 99999 }}{% endfor %}",
            "more than 8388608 characters",
        ),
    ],
)
def test_a_template_that_misbehaves_is_refused(template: str, message: str) -> None:
    rendering = ChatTemplate({"default": template}, {}, "here")
    with pytest.raises(ChatRefusedError, match=message):
        rendering.render([USER])


def test_a_failed_rendering_leaves_nothing_behind() -> None:
    rendering = ChatTemplate({"default": "{% for i in range(n) %}{{ 'ab' }}{% endfor %}"}, {}, "x")
    for _ in range(30):
        assert len(rendering.render([USER], n=99999)) == 2 * 99999


@pytest.mark.parametrize(
    ("messages", "variables", "message"),
    [
        ([], {}, "at least one message"),
        (["text"], {}, "must be a dict"),
        ([USER], {"messages": []}, "own name"),
        ([USER], {"tools": [object()]}, "not object"),
    ],
)
def test_what_is_no_chat_is_refused(
    messages: list[Any], variables: dict[str, Any], message: str
) -> None:
    with pytest.raises(ChatRefusedError, match=message):
        ChatTemplate({"default": CHATML}, {}, "here").render(messages, **variables)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "no chat template"),
        ("one\n{% if %}", "'default', line 2 is not valid"),
        ("{% no such tag %}", "is not valid"),
        (" " * 2_000_000, "exceeds"),
        (5, "must be a text, or a list"),
        ([{"name": "default"}], "must be a text, or a list"),
        ([{"name": "default", "template": 3}], "must be a text, or a list"),
    ],
)
def test_unusable_templates_are_named(tmp_path: Path, template: Any, message: str) -> None:
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({"chat_template": template}), encoding="utf-8")
    with pytest.raises(ChatTemplateError, match=message):
        ChatTemplate.load(tmp_path)


def test_only_other_names(tmp_path: Path) -> None:
    rendering = ChatTemplate({"rag": CHATML, "tool_use": MODEL_TURNS}, {}, "here")
    with pytest.raises(ChatTemplateError, match="'default'; there are rag, tool_use"):
        rendering.render([USER])


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ChatTemplateError, match="not UTF-8"):
        ChatTemplate.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelFolderError, match="not valid JSON"):
        ChatTemplate.load(tmp_path)
