"""POST /tokenize and POST /detokenize."""

from __future__ import annotations

from starlette.responses import Response

from runtime.server.api_error import bad_request
from runtime.server.frontend import Frontend
from runtime.server.prompts import encode_text, render_chat
from runtime.server.requests import DetokenizeRequest, TokenizeRequest
from runtime.server.responses import DetokenizeAnswer, TokenizeAnswer


async def tokenize(front: Frontend, body: TokenizeRequest) -> Response:
    """Token ids of a prompt, or of the prompt that a conversation becomes."""
    front.require_ready()
    front.require_model(body.model)
    if (body.prompt is None) == (body.messages is None):
        raise bad_request("prompt", "prompt: give either prompt or messages")
    special = body.add_special_tokens
    if body.messages is not None:
        generates = body.add_generation_prompt is not False
        text = await render_chat(front, body.messages, add_generation_prompt=generates)
        prompt = await encode_text(front, text, "messages", special=bool(special))
    else:
        assert body.prompt is not None
        prompt = await encode_text(front, body.prompt, "prompt", special=special is not False)
    ids = prompt.token_ids
    answer = TokenizeAnswer(count=len(ids), max_model_len=front.facts.max_model_len, tokens=ids)
    if body.return_token_strs:
        answer.token_strs = front.tokenizer.names(ids)
    return Response(answer.encode(), media_type="application/json")


async def detokenize(front: Frontend, body: DetokenizeRequest) -> Response:
    """Text of token ids, special tokens included."""
    front.require_ready()
    front.require_model(body.model)
    limit = front.facts.vocab_size
    if any(token >= limit for token in body.tokens):
        raise bad_request("tokens", f"tokens: must be below the vocabulary's size, {limit}")
    tokenizer = front.tokenizer

    def work() -> str:
        return tokenizer.decode(body.tokens, skip_special_tokens=False)

    text = await front.in_thread(work)
    return Response(DetokenizeAnswer(prompt=text).encode(), media_type="application/json")
