"""Rendering: complete, repeatable, and clear about what is wrong with a template."""

from __future__ import annotations

import importlib.util
import os
import py_compile
from pathlib import Path

import pytest
from toy_kernel import TEMPLATE, ToyKernel, ToyProblem, write_templates

from autotune.arch import lookup
from autotune.config import Config
from autotune.errors import RenderError
from autotune.render import HEADER_LINES, RenderedKernel, TemplateFolder, import_file

A100 = lookup("a100")
CONFIG = ToyKernel().default_config(ToyProblem(), A100)


@pytest.fixture
def templates(tmp_path: Path) -> TemplateFolder:
    return write_templates(tmp_path / "templates")


def rendered(templates: TemplateFolder, config: Config = CONFIG) -> RenderedKernel:
    return templates.render(ToyKernel(), ToyProblem(), config)


def test_axes_knobs_and_derived_values_arrive(templates: TemplateFolder) -> None:
    lines = rendered(templates).source.splitlines()
    assert lines[HEADER_LINES:] == [
        "# shared part",
        "TILE = 32",
        'MODE = "a"',
        'DTYPE = "bf16"',
        "LANES = 64",
        "WARPS = 2",
        "STAGES = 1",
    ]


def test_the_header_has_a_fixed_number_of_lines_and_no_part_in_the_digest(
    templates: TemplateFolder,
) -> None:
    # The split count is a host knob that this template does not read: the same code, another text.
    one, other = (rendered(templates, CONFIG.replace(splits=n)) for n in (1, 4))
    assert one.source != other.source
    assert one.digest == other.digest
    for text in (one.source, other.source):
        assert all(line[:1] in ("#", "") for line in text.splitlines()[:HEADER_LINES])
        assert text.splitlines()[HEADER_LINES] == "# shared part"
    assert rendered(templates, CONFIG.replace(tile=64)).digest != one.digest


def test_writing_twice_writes_once(templates: TemplateFolder, tmp_path: Path) -> None:
    kernel = rendered(templates)
    path = kernel.write(tmp_path)
    before = path.stat()
    assert kernel.write(tmp_path) == path
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert path.read_text() == kernel.source
    assert path.name == f"toy_{kernel.digest}.py"


def test_a_damaged_file_is_written_anew(templates: TemplateFolder, tmp_path: Path) -> None:
    kernel = rendered(templates)
    path = kernel.write(tmp_path)
    path.write_bytes(b"\xff half of it")
    assert kernel.write(tmp_path).read_text() == kernel.source


def test_bytecode_of_a_damaged_file_does_not_outlive_its_repair(
    templates: TemplateFolder, tmp_path: Path
) -> None:
    kernel = rendered(templates)
    path = kernel.write(tmp_path)
    good = path.stat()
    path.write_text(kernel.source.replace("TILE = 32", "TILE = 99"))
    os.utime(path, ns=(good.st_atime_ns, good.st_mtime_ns))
    assert import_file(path).TILE == 99
    py_compile.compile(str(path), doraise=True)  # as another program might
    kernel.write(tmp_path)
    os.utime(path, ns=(good.st_atime_ns, good.st_mtime_ns))
    assert import_file(path).TILE == 32
    Path(importlib.util.cache_from_source(str(path))).write_bytes(b"not bytecode")
    assert import_file(path).TILE == 32


def test_unknown_names_are_errors_that_name_the_template(templates: TemplateFolder) -> None:
    path = templates.folder / "toy.py.jinja"
    path.write_text("X = {{ tyle }}\n")
    with pytest.raises(RenderError) as caught:
        rendered(templates)
    assert "'tyle' is undefined" in str(caught.value)
    assert str(path) in str(caught.value)
    assert "tile=32" in str(caught.value)


@pytest.mark.parametrize("text", ["X = 1\n{% if tile %}\n", "X = 1\n{{ tile + }}\n"])
@pytest.mark.parametrize("name", ["toy.py.jinja", "include/part.jinja"])
def test_syntax_errors_name_file_and_line(templates: TemplateFolder, name: str, text: str) -> None:
    (templates.folder / name).write_text(text)
    for action in (lambda: rendered(templates), lambda: templates.sha("toy.py.jinja")):
        with pytest.raises(RenderError, match=f"{name}:2: "):
            action()


@pytest.mark.parametrize("text", ["X = {{ tile // 0 }}\n", "X = {{ tile + mode }}\n"])
def test_failing_expressions_are_render_errors(templates: TemplateFolder, text: str) -> None:
    (templates.folder / "toy.py.jinja").write_text(text)
    with pytest.raises(RenderError, match=r"toy\.py\.jinja"):
        rendered(templates)


@pytest.mark.parametrize("name", ["toy.py.jinja", "include/part.jinja"])
def test_missing_files_are_named(templates: TemplateFolder, name: str) -> None:
    (templates.folder / name).unlink()
    for action in (lambda: rendered(templates), lambda: templates.sha("toy.py.jinja")):
        with pytest.raises(RenderError, match=Path(name).name):
            action()


def test_a_templates_sha_covers_what_it_includes(templates: TemplateFolder) -> None:
    before = templates.sha("toy.py.jinja")
    assert len(before) == 16
    assert TemplateFolder(templates.folder).sha("toy.py.jinja") == before
    (templates.folder / "include" / "other.jinja").write_text("# not included\n")
    assert TemplateFolder(templates.folder).sha("toy.py.jinja") == before
    (templates.folder / "include" / "part.jinja").write_text("# changed\n")
    changed = TemplateFolder(templates.folder).sha("toy.py.jinja")
    assert changed != before
    (templates.folder / "toy.py.jinja").write_text(TEMPLATE + "\n")
    assert TemplateFolder(templates.folder).sha("toy.py.jinja") not in (before, changed)


@pytest.mark.parametrize("name", ["tile", "dtype"])
def test_a_name_means_one_thing(templates: TemplateFolder, name: str) -> None:
    class Clashing(ToyKernel):
        def template_values(self, problem: ToyProblem, config: Config) -> dict[str, int]:
            return {name: 1}

    with pytest.raises(AssertionError, match=name):
        templates.render(Clashing(), ToyProblem(), CONFIG)


def test_a_rendered_module_imports_with_its_path(templates: TemplateFolder, tmp_path: Path) -> None:
    path = rendered(templates).write(tmp_path)
    module = import_file(path)
    assert module.TILE == 32
    assert module.__file__ == str(path)


@pytest.mark.parametrize(
    "source", ["x = = 1\n", "x = y\n", "x = 1 + 'a'\n", "x = [].y\n", "x = int('a')\n"]
)
def test_a_module_that_does_not_import_is_named(tmp_path: Path, source: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(source)
    with pytest.raises(RenderError, match=f"{path}: the rendered module does not import"):
        import_file(path)
