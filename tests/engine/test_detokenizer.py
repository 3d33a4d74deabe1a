"""Incremental text is whole characters, and adds up to the text of all tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_tokenizer import VOCAB_SIZE, save_tokenizer

from runtime.detokenizer import IncrementalDetokenizer
from runtime.errors import ModelFolderError, TokenizerError
from runtime.stop_strings import StopStrings
from runtime.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return Tokenizer.load(folder)


def pieces(tokenizer: Tokenizer, prompt: list[int], output: list[int]) -> list[str]:
    detokenizer = IncrementalDetokenizer(tokenizer, prompt, skip_special_tokens=True)
    return [*(detokenizer.append(token) for token in output), detokenizer.flush()]


@pytest.mark.parametrize(
    "text", ["the small engine", "naïve Ωmega 漢字かな", "👩‍🚀 says héllo 🎉", "  spaced \n out  "]
)
def test_no_piece_has_part_of_a_character(tokenizer: Tokenizer, text: str) -> None:
    found = pieces(tokenizer, tokenizer.encode("a prompt: "), tokenizer.encode(text))
    assert "".join(found) == text
    assert not any("\ufffd" in piece for piece in found)


def test_text_comes_as_soon_as_it_is_complete(tokenizer: Tokenizer) -> None:
    assert pieces(tokenizer, [], tokenizer.encode("é!")) == ["", "é", "!", ""]


def test_an_incomplete_character_comes_out_at_the_end(tokenizer: Tokenizer) -> None:
    assert pieces(tokenizer, [], tokenizer.encode("ok é")[:-1]) == ["o", "k", " ", "", "\ufffd"]


def test_special_tokens_are_left_out_or_kept(tokenizer: Tokenizer) -> None:
    output = [*tokenizer.encode("dog"), 2, *tokenizer.encode(" fox")]
    assert "".join(pieces(tokenizer, [1], output)) == "dog fox"
    detokenizer = IncrementalDetokenizer(tokenizer, [1], skip_special_tokens=False)
    assert "".join(detokenizer.append(token) for token in output) == "dog</s> fox"


@given(st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=40), st.integers(0, 10))
def test_pieces_add_up_for_any_tokens(
    tokenizer: Tokenizer, token_ids: list[int], num_prompt: int
) -> None:
    # A character that begins in the prompt and ends in the output has no one place: start anew.
    prompt = [*token_ids[:num_prompt], *tokenizer.encode(".")]
    output = token_ids[num_prompt:]
    found = "".join(pieces(tokenizer, prompt, output))
    assert found == tokenizer.decode(output, skip_special_tokens=True)


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="nowhere: no such folder"):
        Tokenizer.load(tmp_path / "nowhere")
    with pytest.raises(TokenizerError, match="no tokenizer in this folder"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast"}'
    )
    with pytest.raises(TokenizerError, match="cannot be read"):
        Tokenizer.load(tmp_path)


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=3), min_size=1))
def test_stop_strings_do_not_depend_on_the_cuts(text: str, stops: list[str]) -> None:
    watch = StopStrings(stops, include_in_output=False)
    found = None
    for end in range(1, len(text) + 1):
        shown = text[: end - 1]
        held = watch.num_held_back(shown)
        found = watch.find(text[:end], end - 1)
        if found is not None:
            assert found[1] >= len(shown) - held, "what was shown is taken back"
            break
    places = [(text.find(stop) + len(stop), stop) for stop in stops if stop in text]
    if not places:
        assert found is None
    else:
        assert found is not None
        assert text[: found[1] + len(found[0])] == text[: min(places)[0]], "first to be complete"


def test_stop_string_in_or_out_of_the_text() -> None:
    for include, length in ((False, 3), (True, 6)):
        watch = StopStrings(["END", "other"], include_in_output=include)
        assert watch.find("abcENDxyz", 4) == ("END", length)
    assert StopStrings(["END"], include_in_output=False).num_held_back("the EN") == 2
