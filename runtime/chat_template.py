"""A model's own chat template: messages in, the prompt that the model was trained on out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Template
from jinja2.exceptions import TemplateError, TemplateSyntaxError

from runtime.config_fields import read_json_object
from runtime.errors import ChatRefusedError, ChatTemplateError
from runtime.template_sandbox import (
    Budget,
    ChatEnvironment,
    RefusedByTemplateError,
    TemplateLimitError,
    plain_copy,
)

MAX_TEMPLATE_BYTES = 1 << 20
MAX_STEPS = 1_000_000
"""Loop turns, and calls at four each, of one rendering: about a second's worth."""
MAX_CHARS = 1 << 23
"""Characters of one prompt."""

_DEFAULT = "default"
_FOR_TOOLS = "tool_use"
_FILE = "chat_template.jinja"
_FOLDER = "additional_chat_templates"
_TOKEN_NAMES = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
_REASONING = ("reasoning_content", "thinking", "reasoning")

# What a sound template does not raise, and a template that stumbles over the messages does.
_STUMBLES = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)


class ChatTemplate:
    """Renders conversations with the template, or the named templates, of a model folder."""

    def __init__(
        self, sources: Mapping[str, str], special_tokens: Mapping[str, str], where: str
    ) -> None:
        """Compile.

        Args:
            sources: name → Jinja text; "default" is used, or "tool_use" where tools are given.
            special_tokens: `bos_token`, `eos_token` and the like, which templates write.
            where: names the source in errors.

        Raises:
            ChatTemplateError: there is no template, or one is too large or not valid.
        """
        self._where = where
        self._special_tokens = dict(special_tokens)
        if not sources:
            raise ChatTemplateError(
                f"{where}: this model has no chat template ({_FILE}, or chat_template in "
                "tokenizer_config.json): give it a prompt, not messages"
            )
        environment = ChatEnvironment()
        self._templates = {
            name: _compile(environment, name, source, where) for name, source in sources.items()
        }

    @classmethod
    def load(cls, folder: Path) -> ChatTemplate:
        """Read a model folder: template files before `tokenizer_config.json`.

        Raises:
            ChatTemplateError: there is no template, or it cannot be read or compiled.
            ModelFolderError: the tokenizer's configuration cannot be read.
        """
        path = folder / "tokenizer_config.json"
        config = read_json_object(path) if path.is_file() else {}
        return cls(_sources(folder, config), _special_tokens(folder, config), str(folder))

    @classmethod
    def load_file(cls, folder: Path, path: Path) -> ChatTemplate:
        """Read one template file, to be used with a model folder's special tokens.

        Raises:
            ChatTemplateError: it cannot be read or compiled.
            ModelFolderError: the tokenizer's configuration cannot be read.
        """
        config_path = folder / "tokenizer_config.json"
        config = read_json_object(config_path) if config_path.is_file() else {}
        return cls({_DEFAULT: _read(path)}, _special_tokens(folder, config), str(path))

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        /,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """Write a conversation as one prompt, special tokens included.

        Encode the prompt without adding special tokens again.

        Args:
            messages: JSON-like dicts, `role` and `content` as a rule; keys that are None are left
                out, as transformers does.
            add_generation_prompt: end with the start of the assistant's answer.
            variables: further names for the template: `tools`, `documents`, `enable_thinking`, …

        Raises:
            ChatRefusedError: the template refuses these messages, fails on them, or takes more
                steps or text than is allowed.
        """
        if not messages:
            raise ChatRefusedError("a chat needs at least one message")
        if "messages" in variables:
            raise ChatRefusedError("messages is the conversation's own name in a template")
        template = self._choose(tools=variables.get("tools") is not None)
        budget = Budget(MAX_STEPS, MAX_CHARS)
        try:
            given = {
                "tools": None,
                "documents": None,
                **self._special_tokens,
                **plain_copy(variables),
                "messages": [_message(message) for message in messages],
                "add_generation_prompt": add_generation_prompt,
            }
            return _render(template, given, budget)
        except RefusedByTemplateError as error:
            raise ChatRefusedError(f"the chat template refuses these messages: {error}") from error
        except TemplateLimitError as error:
            raise ChatRefusedError(f"the chat template was stopped: {error}") from error
        except (TemplateError, *_STUMBLES) as error:
            raise ChatRefusedError(
                f"the chat template cannot render these messages: {type(error).__name__}: {error}"
            ) from error

    def _choose(self, *, tools: bool) -> Template:
        for name in (_FOR_TOOLS, _DEFAULT) if tools else (_DEFAULT,):
            if name in self._templates:
                return self._templates[name]
        raise ChatTemplateError(
            f"{self._where}: none of the chat templates is named {_DEFAULT!r}; there are "
            f"{', '.join(sorted(self._templates))}"
        )


def _compile(environment: ChatEnvironment, name: str, source: str, where: str) -> Template:
    if len(source) > MAX_TEMPLATE_BYTES:
        raise ChatTemplateError(
            f"{where}: chat template {name!r} exceeds {MAX_TEMPLATE_BYTES} bytes"
        )
    try:
        return environment.from_string(source)
    except (TemplateError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, TemplateSyntaxError) else ""
        raise ChatTemplateError(
            f"{where}: chat template {name!r}{line} is not valid: {error}"
        ) from error


def _render(template: Template, given: dict[str, Any], budget: Budget) -> str:
    pieces, num_chars = [], 0
    for piece in template.generate(**given, **budget.variables()):
        num_chars += len(piece)
        budget.check_length(num_chars)
        pieces.append(piece)
    return "".join(pieces)


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise TypeError(f"a message must be a dict, not {type(message).__name__}")
    copied = {key: plain_copy(value) for key, value in message.items() if value is not None}
    # Reasoning goes by several names, and templates read the first two.
    reasoning = next((copied[name] for name in _REASONING if name in copied), None)
    if reasoning is not None:
        copied = {"thinking": reasoning, **copied, "reasoning_content": reasoning}
    return copied


def _sources(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    paths = {path.stem: path for path in sorted((folder / _FOLDER).glob("*.jinja"))}
    if (folder / _FILE).is_file():
        paths[_DEFAULT] = folder / _FILE
    if paths:
        return {name: _read(path) for name, path in paths.items()}
    found = config.get("chat_template")
    if found is None:
        return {}
    if isinstance(found, str):
        return {_DEFAULT: found}
    try:
        sources = {entry["name"]: entry["template"] for entry in found}
    except (TypeError, LookupError):
        sources = {"": None}
    if not all(isinstance(text, str) for pair in sources.items() for text in pair):
        raise ChatTemplateError(
            f"{folder / 'tokenizer_config.json'}: chat_template must be a text, or a list of "
            '{"name": ..., "template": ...}'
        )
    return sources


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ChatTemplateError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ChatTemplateError(f"{path}: not UTF-8: {error}") from error


def _special_tokens(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    path = folder / "special_tokens_map.json"
    # Newer folders keep all in tokenizer_config.json, and a stale map beside it counts for nothing.
    older = (
        read_json_object(path) if "added_tokens_decoder" not in config and path.is_file() else {}
    )
    tokens = {}
    for name in _TOKEN_NAMES:
        value = older.get(name, config.get(name))
        text = value.get("content") if isinstance(value, Mapping) else value
        if isinstance(text, str):
            tokens[name] = text
    return tokens
