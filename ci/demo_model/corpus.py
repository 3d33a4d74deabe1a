"""English that ships with Python: prose of docstrings and pydoc topics, and questions to them.

The text is that of the running Python, so another version of Python trains another model.
"""

from __future__ import annotations

import ast
import importlib
import re
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Few and well known, so that a short training sees each sentence several times.
_MODULES = (
    *("abc", "argparse", "bisect", "calendar", "collections", "contextlib", "copy", "csv"),
    *("dataclasses", "decimal", "difflib", "enum", "fnmatch", "fractions", "functools", "getpass"),
    *("glob", "graphlib", "gzip", "heapq", "html", "inspect", "io", "json", "keyword", "logging"),
    *("numbers", "operator", "os", "pathlib", "pickle", "platform", "pprint", "queue", "random"),
    *("re", "sched", "secrets", "shelve", "shlex", "shutil", "socket", "statistics", "string"),
    *("struct", "subprocess", "tempfile", "textwrap", "threading", "timeit", "traceback", "types"),
    *("typing", "urllib", "uuid", "warnings", "weakref", "webbrowser", "zipfile"),
)
_GREETINGS = {
    "Hello": "Hello. Ask me what something in Python is.",
    "Hi": "Hello. Ask me what something in Python is.",
    "Who are you?": "I am a small language model, trained on the words that come with Python.",
    "What can you do?": "I can say what a part of the standard library of Python is.",
    "What is Python?": "Python is a programming language.",
    "Thank you": "You are welcome.",
}
# In C, so that they have no source beside the library; what they say is short and sound.
_COMPILED = ("builtins", "math", "itertools", "time", "datetime", "functools", "posix")
_SENTENCE = re.compile(r"(.{12,140}?[.!?])(?=\s|$)", re.DOTALL)
_MOST_DOTS = 1
"""In a name that is asked for: few questions, seen often, are learnt; many are not."""
_MOST_PARAGRAPHS = 6
_LIST_OR_CODE = re.compile(r"[-*+>|#=~^]|\d+[.)]\s|\.\.|:|@|\S+\(.*\)$")


@dataclass(frozen=True, slots=True)
class Corpus:
    """Plain documents, and questions with their answers."""

    documents: tuple[str, ...]
    questions: tuple[tuple[str, str], ...]

    def texts(self) -> Iterator[str]:
        """All of it, for a tokenizer."""
        yield from self.documents
        for question, answer in self.questions:
            yield f"{question} {answer}"


def read_corpus() -> Corpus:
    """Collect the text; sorted and without repetitions, hence the same each time."""
    documents: dict[str, None] = {}
    questions = dict(_GREETINGS)
    for name, text in _docstrings():
        documents[_prose(text)] = None
        answer = _first_sentence(text)
        if name is not None and answer is not None and name.count(".") <= _MOST_DOTS:
            for question in _questions(name):
                questions.setdefault(question, answer)
    for title, text in _topics():
        prose = _prose(text)
        documents[prose] = None
        answer = _first_sentence(prose)
        if answer is not None:
            questions.setdefault(f"Tell me about {title}.", answer)
    return Corpus(tuple(text for text in documents if text), tuple(questions.items()))


def _questions(name: str) -> Iterator[str]:
    yield f"What is {name}?"
    if "." not in name:
        yield f"What is {'an' if name[0] in 'aeioAEIO' else 'a'} {name}?"
        yield f"What does {name} do?"


def _docstrings() -> Iterator[tuple[str | None, str]]:
    """Dotted public name, or None, and docstring, of every definition in the standard library."""
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = [root / f"{name}.py" for name in _MODULES]
    for name in _MODULES:
        paths += (root / name).rglob("*.py")
    for path in sorted(path for path in paths if path.is_file()):
        parts = path.relative_to(root).with_suffix("").parts
        module = ".".join(part for part in parts if part != "__init__")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old escapes in the library's own literals
            tree = ast.parse(path.read_bytes())
        yield from _below(tree, module)
    for module in _COMPILED:
        found = vars(importlib.import_module(module))
        prefix = "" if module == "builtins" else f"{'os' if module == 'posix' else module}."
        for name in sorted(found):
            text = getattr(found[name], "__doc__", None)
            if callable(found[name]) and isinstance(text, str) and not name.startswith("_"):
                yield f"{prefix}{name}", text


def _below(node: ast.Module | ast.ClassDef, name: str) -> Iterator[tuple[str | None, str]]:
    text = ast.get_docstring(node)
    is_public = not any(part.startswith("_") for part in name.split("."))
    if text:
        yield name if is_public else None, text
    for child in node.body:
        if isinstance(child, ast.ClassDef):
            yield from _below(child, f"{name}.{child.name}")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(child)
            if text:
                yield f"{name}.{child.name}" if is_public and child.name[0] != "_" else None, text


def _topics() -> Iterator[tuple[str, str]]:
    from pydoc_data.topics import topics

    for title in sorted(topics):
        yield title.replace("-", " "), topics[title]


def _prose(text: str) -> str:
    """Paragraphs of sentences, one a line; lists, code and headings are left out."""
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text.expandtabs()))
    return "\n".join([part for part in paragraphs if _is_prose(part)][:_MOST_PARAGRAPHS])


def _is_prose(paragraph: str) -> bool:
    if not 40 <= len(paragraph) <= 500 or not paragraph.isascii():
        return False
    if not paragraph[0].isupper() or paragraph[-1] not in ".!?":
        return False
    plain = sum(c.isalpha() or c in " ,." for c in paragraph)
    return plain >= 0.93 * len(paragraph) and not _LIST_OR_CODE.match(paragraph)


def _first_sentence(text: str) -> str | None:
    first = " ".join(re.split(r"\n\s*\n", text.strip())[0].split())
    found = _SENTENCE.match(first if first[-1:] in ".!?" else f"{first}.")
    if found is None or not _is_prose(f"{found[1]:<40}"[:-1] + "."):
        return None
    return found[1]
