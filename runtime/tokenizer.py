"""A model's tokenizer, from local files only; the rest of the engine sees ids and text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime.config_fields import read_json_object
from runtime.errors import ModelFolderError, TokenizerError


class Tokenizer:
    """Wraps a Hugging Face tokenizer."""

    def __init__(self, hf_tokenizer: Any) -> None:
        self.hf_tokenizer = hf_tokenizer

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read the tokenizer of a model folder; runs no code from it.

        Raises:
            ModelFolderError: there is no such folder.
            TokenizerError: there is none, or it cannot be read.
        """
        from transformers import AutoTokenizer

        if not folder.is_dir():
            raise ModelFolderError(f"{folder}: no such folder; give a local model folder")
        names = ("tokenizer.json", "tokenizer.model", "vocab.json")
        if not any((folder / name).is_file() for name in names):
            raise TokenizerError(
                f"{folder}: no tokenizer in this folder ({', '.join(names)}); add it, or give "
                "prompts as token ids and skip the tokenizer"
            )
        try:
            found = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, config=_config_hint(folder)
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise TokenizerError(f"{folder}: the tokenizer cannot be read: {error}") from error
        return cls(found)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Tokens of a prompt, with the special tokens that the model expects around it or not."""
        found = self.hf_tokenizer(text, add_special_tokens=add_special_tokens)
        ids: list[int] = found["input_ids"]
        return ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Text of tokens, spaces as they are."""
        text: str = self.hf_tokenizer.decode(
            list(token_ids),
            skip_special_tokens=skip_special_tokens,
            clean_up_tokenization_spaces=False,
        )
        return text

    def names(self, token_ids: Sequence[int]) -> list[str]:
        """The vocabulary's own names of tokens; empty for ids that it does not have."""
        found = self.hf_tokenizer.convert_ids_to_tokens(list(token_ids))
        return [name or "" for name in found]


def _config_hint(folder: Path) -> Any:
    """What transformers needs of config.json to choose the tokenizer's class, or None.

    Left to itself, it loads the model's configuration class, and with it torch's compiler: seconds.
    The hint is enough where the folder names its tokenizer's class, as all but old ones do.
    """
    paths = (folder / "tokenizer_config.json", folder / "config.json")
    if not all(path.is_file() for path in paths):
        return None
    declared, config = map(read_json_object, paths)
    if not isinstance(declared.get("tokenizer_class"), str):
        return None
    from transformers import PreTrainedConfig

    hint = PreTrainedConfig(tokenizer_class=config.get("tokenizer_class"))
    hint.model_type = config.get("model_type", "")
    return hint
