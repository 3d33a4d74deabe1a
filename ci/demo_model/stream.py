"""Training batches: shuffled documents and chats, one after the other, cut into rows."""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from demo_model.corpus import Corpus
from demo_model.vocabulary import Vocabulary
from torch import Tensor

IGNORED = -100
_CHAT_REPEATS = 3
"""A chat's answer hangs on one name, and takes more turns to learn than prose."""


class Stream:
    """Endless batches in an order that the seed decides."""

    def __init__(self, corpus: Corpus, vocabulary: Vocabulary, seed: int) -> None:
        self._pieces = [(vocabulary.document(text), 1) for text in corpus.documents]
        for question, answer in corpus.questions:
            self._pieces += [vocabulary.chat(question, answer)] * _CHAT_REPEATS
        self._source = random.Random(seed)
        self.num_tokens = sum(len(ids) for ids, _ in self._pieces)

    def batches(self, num_rows: int, row_length: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets, int64 [num_rows, row_length] each.

        A target is IGNORED where a question, or another piece, goes on: only answers and documents
        are learnt.
        """
        ids: list[int] = []
        targets: list[int] = []
        size = num_rows * row_length
        while True:
            self._source.shuffle(self._pieces)
            for piece, num_given in self._pieces:
                ids += piece
                # The target at a token is the one after it; the last token has none of its own.
                targets += [IGNORED] * (num_given - 1) + piece[num_given:] + [IGNORED]
                while len(ids) >= size:
                    yield (
                        torch.tensor(ids[:size]).view(num_rows, row_length),
                        torch.tensor(targets[:size]).view(num_rows, row_length),
                    )
                    del ids[:size], targets[:size]
