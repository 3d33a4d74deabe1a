"""Template + problem + config → a Python module on disk, and its import. Compiles nothing."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from dataclasses import dataclass
from functools import cached_property
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import jinja2
import jinja2.meta

from autotune.config import Config
from autotune.errors import RenderError
from autotune.files import write_atomically
from autotune.interpreted import hasten
from autotune.interpreted_bf16 import teach_bf16
from autotune.kernels.spec import KernelSpec
from autotune.problem import Problem

HEADER_LINES = 4
"""Fixed, because a function's first line is part of Triton's cache key."""


@dataclass(frozen=True, slots=True)
class RenderedKernel:
    """Source text of one candidate and where it came from."""

    kernel: str
    template: Path
    source: str
    config: Config

    @property
    def digest(self) -> str:
        """First 16 hex digits of the sha256 of the source below the header."""
        body = self.source.split("\n", HEADER_LINES)[HEADER_LINES]
        return hashlib.sha256(body.encode()).hexdigest()[:16]

    def write(self, cache: Path) -> Path:
        """Write to `<cache>/kernels/<kernel>_<digest>.py` (temp then rename) and return the path.

        Raises:
            StorageError: the folder cannot be written.
        """
        path = cache / "kernels" / f"{self.kernel}_{self.digest}.py"
        if not path.is_file() or path.read_bytes() != self.source.encode():
            write_atomically(path, self.source)
        return path


class TemplateFolder:
    """The Jinja templates below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _environment(self) -> jinja2.Environment:
        return jinja2.Environment(
            loader=jinja2.FileSystemLoader(self.folder),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            autoescape=False,
        )

    def render(self, spec: KernelSpec[Any], problem: Problem, config: Config) -> RenderedKernel:
        """Render a kernel's template for one cell and configuration.

        Raises:
            RenderError: the template is missing, has a syntax error, names an unknown value, or
                computes what cannot be computed.
        """
        values: dict[str, Any] = {}
        extra = spec.template_values(problem, config)
        for source in (problem.exact_axes(), config, extra):
            clash = values.keys() & source.keys()
            assert not clash, f"{spec.name}: {sorted(clash)} is an axis and a knob"
            values.update(source)
        try:
            body = self._environment.get_template(spec.template).render(values)
        except jinja2.TemplateSyntaxError as error:
            raise self._syntax_error(error) from error
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise RenderError(
                f"{self.folder / spec.template}: {error} (problem {problem.label()}; {config})"
            ) from error
        header = (
            f"# Generated from templates/{spec.template}; edit that file, not this one.\n"
            f"# Problem: {problem.label('exact')}\n"
            f"# Config: {config}\n"
            "\n"
        )
        assert header.count("\n") == HEADER_LINES
        return RenderedKernel(spec.name, self.folder / spec.template, header + body, config)

    def sha(self, template: str) -> str:
        """First 16 hex digits of the sha256 of a template and all it includes.

        Raises:
            RenderError: the template or an included file is missing or has a syntax error.
        """
        digest = hashlib.sha256()
        pending, seen = [template], set[str]()
        while pending:
            name = pending.pop(0)
            if name in seen:
                continue
            seen.add(name)
            try:
                text = (self.folder / name).read_text(encoding="utf-8")
                parsed = self._environment.parse(text, name)
            except OSError as error:
                raise RenderError(f"cannot read the template {self.folder / name}") from error
            except jinja2.TemplateSyntaxError as error:
                raise self._syntax_error(error) from error
            digest.update(name.encode() + b"\0" + text.encode() + b"\0")
            pending += sorted(filter(None, jinja2.meta.find_referenced_templates(parsed)))
        return digest.hexdigest()[:16]

    def _syntax_error(self, error: jinja2.TemplateSyntaxError) -> RenderError:
        return RenderError(f"{self.folder / str(error.name)}:{error.lineno}: {error.message}")


class _SourceOnlyLoader(SourceFileLoader):
    """Neither reads nor writes bytecode: what runs is the text, which `write` has compared.

    Python trusts bytecode by time and size, so that of a damaged file could outlive its repair.
    """

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def import_file(path: Path) -> ModuleType:
    """Import a rendered kernel as a module of its own; imports triton.

    Raises:
        RenderError: the file does not import; the message names template-made path and line.
    """
    name = f"pagetune_kernel_{path.stem}"
    loader = _SourceOnlyLoader(name, str(path))
    module_spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert module_spec is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except (SyntaxError, NameError, TypeError, AttributeError, ValueError) as error:
        del sys.modules[name]
        raise RenderError(f"{path}: the rendered module does not import: {error!r}") from error
    hasten()
    teach_bf16()
    return module
