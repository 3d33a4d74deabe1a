"""What no file of ours may contain, as attackers have used it elsewhere to run their own code.

Pickles (vLLM's CVE-2025-32444, SGLang's CVE-2026-3059), torch.load as a fall-back
(CVE-2026-15976), code of a model's folder (CVE-2026-22807), templates without a sandbox
(CVE-2026-5760), strings that become code or commands.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("autotune", "runtime", "ci")

MODULES = frozenset({
    "pickle", "_pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib",
    "multiprocessing", "torch.multiprocessing", "imp", "telnetlib", "xmlrpc",
})  # fmt: skip
"""multiprocessing pickles what it passes on."""

NAMES = frozenset({
    "eval", "exec", "compile", "__import__",
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput",
    "torch.load", "torch.save", "torch.hub.load",
    "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.UnsafeLoader",
    "yaml.Loader", "yaml.FullLoader",
    "concurrent.futures.ProcessPoolExecutor", "concurrent.futures.process",
    "tempfile.mktemp",
})  # fmt: skip

FLAGS = {"shell": False, "trust_remote_code": False, "allow_pickle": False, "weights_only": True}
"""Argument → the only value it may have, written out."""

SANDBOXED_ONLY = ("jinja2.Environment", "jinja2.Template", "jinja2.environment.Environment")
"""Fit for templates of our own alone."""
OWN_TEMPLATES = ("autotune/render.py",)


def violations(source: str, path: str = "here.py") -> Iterator[str]:
    """What of a file is forbidden, by line."""
    tree = ast.parse(source)
    aliases = _aliases(tree)
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        for target in _imports(node):
            if any(target == name or target.startswith(f"{name}.") for name in MODULES):
                yield f"{path}:{line}: imports {target}"
        if isinstance(node, ast.Name | ast.Attribute):
            name = _dotted(node, aliases)
            if name in NAMES:
                yield f"{path}:{line}: uses {name}"
        if isinstance(node, ast.Call):
            name = _dotted(node.func, aliases)
            if name in SANDBOXED_ONLY and path not in OWN_TEMPLATES:
                yield f"{path}:{line}: calls {name}, which has no sandbox"
            for keyword in node.keywords:
                wanted = FLAGS.get(keyword.arg or "")
                if wanted is not None and not (
                    isinstance(keyword.value, ast.Constant) and keyword.value.value is wanted
                ):
                    yield f"{path}:{line}: {keyword.arg} is not {wanted}, written out"
        if isinstance(node, ast.Dict):
            for key in node.keys:
                if isinstance(key, ast.Constant) and key.value in FLAGS:
                    yield f"{path}:{line}: {key.value} hidden in a dict"


def _imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module is not None:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _aliases(tree: ast.AST) -> dict[str, str]:
    """Local name → what it was imported as."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def _dotted(node: ast.expr, aliases: dict[str, str]) -> str | None:
    """`t.load` → "torch.load" where t is torch; a builtin by its name; None for what is neither."""
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value, aliases)
        return None if owner is None else f"{owner}.{node.attr}".removeprefix("builtins.")
    if isinstance(node, ast.Name):
        return aliases.get(node.id, node.id)
    return None


def test_no_file_contains_it() -> None:
    found = []
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(paths) > 200
    for path in paths:
        source = path.read_text(encoding="utf-8")
        found.extend(violations(source, path.relative_to(ROOT).as_posix()))
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def f():\n    from pickle import loads",
        "import cloudpickle as json",
        "from multiprocessing import Queue",
        "import multiprocessing.shared_memory",
        "eval(text)",
        "run = exec",
        "import builtins\nbuiltins.eval(text)",
        "import torch\ntorch.load(path)",
        "import torch as t\nt.load(path)",
        "from torch import load\nload(path)",
        "from torch import load as read\nread(path)",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
        "from yaml import UnsafeLoader\nUnsafeLoader",
        "import subprocess\nsubprocess.run(command, shell=True)",
        "import subprocess\nsubprocess.run(command, shell=wanted)",
        "import os\nos.system(command)",
        "AutoModel.from_pretrained(folder, trust_remote_code=True)",
        "AutoModel.from_pretrained(folder, trust_remote_code=options.trust)",
        "AutoModel.from_pretrained(folder, **{'trust_remote_code': True})",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "from concurrent import futures\nfutures.ProcessPoolExecutor()",
        "import concurrent.futures\nconcurrent.futures.ProcessPoolExecutor()",
        "import jinja2\njinja2.Environment()",
        "from jinja2 import Template\nTemplate(text)",
    ],
)
def test_it_is_seen(source: str) -> None:
    assert list(violations(source))


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "import re\nre.compile('a')",
        "compiler.compile(source)",
        "import yaml\nyaml.safe_load(text)",
        "import subprocess\nsubprocess.run(['ls'], shell=False)",
        "AutoModel.from_pretrained(folder, trust_remote_code=False)",
        "from jinja2.sandbox import ImmutableSandboxedEnvironment\nImmutableSandboxedEnvironment()",
    ],
)
def test_what_looks_like_it_is_let_be(source: str) -> None:
    assert list(violations(source)) == []
