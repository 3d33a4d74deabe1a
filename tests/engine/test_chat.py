"""Chats from Python and from the command line, with the model's own template."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import save_model
from tiny_tokenizer import save_tokenizer

from runtime.cli import main
from runtime.errors import InvalidParameterError
from runtime.llm import LLM
from runtime.sampling_params import SamplingParams

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.content == 'no' %}{{ raise_exception('not no') }}{% endif %}"
    "{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}the {{ mood }}{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("chat")
    save_model("llama-text", made)
    save_tokenizer(made)
    (made / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return made


def test_special_tokens_are_written_once_and_by_the_template(folder: Path) -> None:
    llm = LLM(folder)
    assert llm.engine.tokenizer is not None
    ids = llm.chat_prompt([{"role": "user", "content": "a fox"}], mood="lazy")
    assert llm.engine.tokenizer.decode(ids, skip_special_tokens=False) == (
        "<s>user: a fox</s>the lazy"
    )
    assert ids.count(1) == 1
    assert ids.count(2) == 1
    params = SamplingParams(temperature=0, max_tokens=5)
    found = llm.chat([{"role": "user", "content": "a fox"}], params, mood="lazy")
    assert found.outputs == llm.generate(ids, params)[0].outputs


def test_a_chat_needs_a_tokenizer(folder: Path) -> None:
    with pytest.raises(InvalidParameterError, match="skip_tokenizer=True is not valid"):
        LLM(folder, skip_tokenizer=True).chat_prompt([{"role": "user", "content": "hi"}])


def test_the_command_answers_in_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["generate", str(folder), "--max-tokens", "4", "--chat", "a fox"]
    assert main(command) == 0
    alone = capsys.readouterr().out
    assert alone.strip()
    assert main([*command, "--chat", "a dog", "--prompt", "the", "--prompt-ids", "5,6"]) == 0
    text = capsys.readouterr().out
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# the",
        "# a fox",
        "# a dog",
        "# [5, 6]",
    ]
    assert f"# a fox\n{alone}" in text
    assert len(text.splitlines()[-1].split()) == 4, "token ids in, token ids out"


def test_a_refusal_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(folder), "--chat", "no"]) == 2
    assert capsys.readouterr().err == (
        "runtime: the chat template refuses these messages: not no\n"
    )
