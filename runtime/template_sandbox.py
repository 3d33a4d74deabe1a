"""A Jinja environment for chat templates: nothing of Python within reach, and every step counted.

A template comes with a model, and models come from strangers. It can open no file, load no other
template and change no value of the caller's; a runaway loop, a text that doubles itself and an
endless recursion end in an error. What a field width can allocate (`"%9999d"`) is not counted.

The names, filters and tags are those that transformers gives a template, so that both render the
same text (transformers, `utils/chat_template_utils.py`).
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

_BUDGET = "step budget"
"""Where a rendering keeps its budget; the space keeps templates from naming it."""
_COUNTED = "counted loop"
_JOINED = "counted join"
_MAX_EXPONENT = 64
_CALL_STEPS = 4
"""A call takes several times as long as the turn of a loop."""


class RefusedByTemplateError(TemplateError):
    """The template itself called `raise_exception`."""


class TemplateLimitError(TemplateError):
    """A rendering took more steps, or made a longer text, than is allowed."""


class Budget:
    """What is left to one rendering."""

    def __init__(self, max_steps: int, max_chars: int) -> None:
        self.max_chars = max_chars
        self._max_steps = max_steps
        self._steps_left = max_steps

    def spend(self, steps: int) -> None:
        """Count turns of loops, 1 each, and calls.

        Raises:
            TemplateLimitError: there were too many.
        """
        self._steps_left -= steps
        if self._steps_left < 0:
            raise TemplateLimitError(f"it takes more than {self._max_steps} steps")

    def check_length(self, num_chars: int) -> None:
        """Compare a text's length, or a list's, with the bound.

        Raises:
            TemplateLimitError: it is too long.
        """
        if num_chars > self.max_chars:
            raise TemplateLimitError(f"it makes a text of more than {self.max_chars} characters")

    def variables(self) -> dict[str, Any]:
        """What hands the budget to a rendering."""
        return {_BUDGET: self}


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """Compiles chat templates; give `Budget.variables()` to every rendering."""

    intercepted_binops = frozenset({"*", "+", "**"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
        )
        self.filters |= {"tojson": _tojson, _COUNTED: _counted, _JOINED: _joined}
        self.globals |= {
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
            "dict": _Dict(),
            "namespace": _Namespace,
        }

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call for a template, if the sandbox allows it."""
        context[_BUDGET].spend(_CALL_STEPS)
        return super().call(context, function, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute what can grow without a loop, if it stays in bounds."""
        budget: Budget = context[_BUDGET]
        if operator == "**":
            if isinstance(right, int) and abs(right) > _MAX_EXPONENT:
                raise TemplateLimitError(f"its exponents must be at most {_MAX_EXPONENT}")
        elif operator == "+":
            budget.check_length(_length(left) + _length(right))
        else:
            for text, count in ((left, right), (right, left)):
                if isinstance(count, int):
                    budget.check_length(_length(text) * count)
        return super().call_binop(context, operator, left, right)

    def _generate(
        self,
        source: nodes.Template,
        name: str | None,
        filename: str | None,
        defer_init: bool = False,
    ) -> str:
        # The hook that Jinja offers between parsing and code: loops and `~` become filters.
        for loop in list(source.find_all(nodes.For)):
            loop.iter = nodes.Filter(loop.iter, _COUNTED, [], [], None, None, lineno=loop.lineno)
        _replace_concats(source)
        return super()._generate(source, name, filename, defer_init)


def _replace_concats(node: nodes.Node) -> None:
    for field, value in list(node.iter_fields()):
        if isinstance(value, nodes.Node):
            _replace_concats(value)
            setattr(node, field, _bounded_concat(value))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, nodes.Node):
                    _replace_concats(item)
                    value[index] = _bounded_concat(item)


def _bounded_concat(node: nodes.Node) -> nodes.Node:
    if not isinstance(node, nodes.Concat):
        return node
    parts = nodes.List(list(node.nodes), lineno=node.lineno)
    return nodes.Filter(parts, _JOINED, [], [], None, None, lineno=node.lineno)


@pass_context
def _counted(context: Context, items: Any) -> Any:
    """Count the turns of a loop: of a list at once, so that `loop.length` stays what it is."""
    budget: Budget = context[_BUDGET]
    try:
        budget.spend(len(items))
    except TypeError:
        return _counted_one_by_one(budget, items)
    return items


def _counted_one_by_one(budget: Budget, items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        budget.spend(1)
        yield item


@pass_context
def _joined(context: Context, parts: list[Any]) -> str:
    texts = [str(part) for part in parts]
    context[_BUDGET].check_length(sum(map(len, texts)))
    return "".join(texts)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple) else 0


class _GenerationTag(Extension):
    """`{% generation %}…{% endgeneration %}` marks what the assistant says; it renders its body."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own type

    def parse(self, parser: Parser) -> nodes.Node:
        """Read the block; its variables stay its own, as a call block's do."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    @staticmethod
    def _render(caller: Macro) -> str:
        return caller()


class _Dict:
    """`dict(...)` and `dict.fromkeys(...)` without the type behind them."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        """Make a dict whose values are all the same."""
        return dict.fromkeys(keys, value)


class _Namespace(Namespace):
    """A namespace without names that start with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # so that a name may be `self`
        self, values = args[0], dict(*args[1:], **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace takes no name with a leading underscore: {name!r}")


def _raise_exception(message: object) -> None:
    raise RefusedByTemplateError(str(message))


def _strftime_now(layout: str) -> str:
    return datetime.datetime.now().strftime(layout)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter would escape <, > and & for HTML.
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def plain_copy(value: Any) -> Any:
    """Copy JSON-like data into plain types; a template must not get at methods of other objects.

    Raises:
        TypeError: there is something else in it.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {plain_copy(key): plain_copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_copy(item) for item in value]
    if isinstance(value, str):
        return str.__str__(value)
    raise TypeError(f"a template takes text, numbers, lists and dicts, not {type(value).__name__}")
