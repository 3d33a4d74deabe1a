"""Log-probabilities in the shapes of the two APIs."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.server.messages import TokenScore, TokenScores
from runtime.server.responses import (
    ChatLogprobs,
    CompletionLogprobs,
    PromptLogprobs,
    ScoredToken,
    TokenLogprob,
    TopLogprob,
)

LOWEST = -9999.0
"""JSON has no minus infinity; vLLM sends this in its place."""


def completion_logprobs(
    scores: Sequence[TokenScores | None], first_texts: Sequence[str], offset: int
) -> CompletionLogprobs:
    """Shape scores for /v1/completions.

    Args:
        scores: one per token; None for a prompt's first.
        first_texts: texts of the leading tokens without scores.
        offset: characters before the first token.
    """
    found = CompletionLogprobs(text_offset=[], token_logprobs=[], tokens=[], top_logprobs=[])
    texts = iter(first_texts)
    for entry in scores:
        found.text_offset.append(offset)
        if entry is None:
            text = next(texts)
            found.token_logprobs.append(None)
            found.top_logprobs.append(None)
        else:
            text = entry[0].text
            found.token_logprobs.append(_value(entry[0]))
            top: dict[str, float] = {}
            for score in sorted(entry, key=lambda score: score.rank):
                top.setdefault(score.text, _value(score))  # ids of the same text: the likelier
            found.top_logprobs.append(top)
        found.tokens.append(text)
        offset += len(text)
    return found


def chat_logprobs(scores: Sequence[TokenScores], num_top: int) -> ChatLogprobs:
    """Shape scores for /v1/chat/completions."""
    return ChatLogprobs(content=[_token(entry, num_top) for entry in scores])


def prompt_logprobs(scores: Sequence[TokenScores | None]) -> PromptLogprobs:
    """Shape a prompt's scores as vLLM does, by token id."""
    return [
        None
        if entry is None
        else {
            str(s.token_id): ScoredToken(logprob=_value(s), rank=s.rank, decoded_token=s.text)
            for s in entry
        }
        for entry in scores
    ]


def _token(entry: TokenScores, num_top: int) -> TokenLogprob:
    ranked = sorted(entry, key=lambda score: score.rank)[:num_top]
    chosen = _top(entry[0])
    return TokenLogprob(
        token=chosen.token,
        logprob=chosen.logprob,
        bytes=chosen.bytes,
        top_logprobs=[_top(score) for score in ranked],
    )


def _top(score: TokenScore) -> TopLogprob:
    return TopLogprob(
        token=score.text, logprob=_value(score), bytes=list(score.text.encode("utf-8"))
    )


def _value(score: TokenScore) -> float:
    return max(score.logprob, LOWEST)
