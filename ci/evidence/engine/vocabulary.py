"""A tokenizer without training, so that detokenising has its place in a step."""

from __future__ import annotations

from pathlib import Path


def write_tokenizer(folder: Path, vocab_size: int) -> None:
    """Write tokenizer.json: one word for each token id."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"w{index}": index for index in range(vocab_size)}
    plain = Tokenizer(models.WordLevel(words, unk_token="w0"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    plain.decoder = decoders.Metaspace(replacement="_")
    PreTrainedTokenizerFast(tokenizer_object=plain).save_pretrained(folder)
