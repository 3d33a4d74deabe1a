"""The page at `/`, and the figures that it polls at `/status`.

The page itself says nothing about the server, so that it may be read without a key and ask for one;
`/status` is behind the key like everything else.
"""

from __future__ import annotations

import re
import time
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import HTMLResponse, Response

import runtime
from runtime.server.frontend import Frontend
from runtime.server.messages import EngineFacts
from runtime.server.openapi import ERRORS
from runtime.server.responses import ApiAnswer

PAGE = Path(__file__).with_name("status_page.html")


class KernelUse(ApiAnswer):
    """A tuned kernel in use, at some sizes."""

    operation: str
    sizes: str
    kernel: str
    tier: str
    provenance: str | None
    gain: float | None
    """Time of the untuned default over it."""


class EngineStatus(ApiAnswer):
    """What does not change while the engine lives."""

    architecture: str
    device: str
    dtype: str
    kv_dtype: str
    operations: str
    block_size: int
    num_blocks: int
    max_model_len: int
    max_num_seqs: int
    max_queue_len: int
    load_s: float
    kernels: list[KernelUse]


class StatusAnswer(ApiAnswer):
    """Of GET /status; counts are since the start."""

    status: str
    version: str
    models: list[str]
    has_text: bool
    """Whether prompts may be text."""
    has_chat: bool
    time_s: float
    """Of a clock that only its own differences have a meaning for."""
    uptime_s: float
    engine: EngineStatus | None
    """None while it loads."""
    num_running: int
    num_waiting: int
    kv_usage: float
    """Share of the KV blocks; 1 is all."""
    num_preemptions: int
    num_prompt_tokens: int
    num_output_tokens: int
    num_first_tokens: int
    """Requests that have got their first token."""
    first_token_s: float
    """Sum of the times that they waited for it."""
    num_finished: int
    num_rejected: int


def status_routes(front: Frontend) -> APIRouter:
    """Routes of the page and of its figures."""
    router = APIRouter(responses=ERRORS)
    text = PAGE.read_text(encoding="utf-8")
    headers = page_headers(text)

    @router.get("/", include_in_schema=False)
    async def read_page() -> Response:
        """A page for people: state, plots, a box to try a prompt."""
        return HTMLResponse(text, headers=headers)

    @router.get("/status", responses={200: {"model": StatusAnswer}})
    async def read_status() -> Response:
        """What the page shows; answered in every state of the server."""
        data = describe_status(front).encode()
        return Response(data, media_type="application/json", headers={"Cache-Control": "no-store"})

    return router


def page_headers(text: str) -> dict[str, str]:
    """Headers of the page: of all scripts and styles, only its own may run, known by their hash."""
    policy = (
        f"default-src 'none'; script-src {_hashes(text, 'script')}; "
        f"style-src {_hashes(text, 'style')}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }


def _hashes(text: str, tag: str) -> str:
    """Sources that allow the contents of an inline element."""
    blocks = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    assert blocks, f"the page has no {tag}"
    digests = (b64encode(sha256(block.encode()).digest()).decode() for block in blocks)
    return " ".join(f"'sha256-{digest}'" for digest in digests)


def describe_status(front: Frontend) -> StatusAnswer:
    """The server at this moment."""
    gauges, totals = front.client.gauges, front.metrics.totals()
    facts = front.known_facts
    return StatusAnswer(
        status=front.status.value,
        version=runtime.__version__,
        models=list(front.config.served_model_names),
        has_text=front.has_tokenizer,
        has_chat=front.has_template,
        time_s=time.monotonic(),
        uptime_s=max(0.0, time.time() - front.created_s),
        engine=None if facts is None else _engine_status(facts),
        num_running=gauges.num_running,
        num_waiting=gauges.num_waiting,
        kv_usage=gauges.num_used_blocks / max(1, gauges.num_usable_blocks),
        num_preemptions=gauges.num_preemptions,
        num_prompt_tokens=int(totals["prompt_tokens_total"]),
        num_output_tokens=int(totals["generation_tokens_total"]),
        num_first_tokens=int(totals["time_to_first_token_seconds_count"]),
        first_token_s=totals["time_to_first_token_seconds_sum"],
        num_finished=int(totals["request_success_total"]),
        num_rejected=int(totals["admission_rejections_total"]),
    )


def _engine_status(facts: EngineFacts) -> EngineStatus:
    return EngineStatus(
        architecture=facts.architecture,
        device=facts.device,
        dtype=facts.dtype,
        kv_dtype=facts.kv_dtype,
        operations=facts.operations,
        block_size=facts.block_size,
        num_blocks=facts.num_blocks,
        max_model_len=facts.max_model_len,
        max_num_seqs=facts.max_num_seqs,
        max_queue_len=facts.max_queue_len,
        load_s=facts.load_s,
        kernels=[
            KernelUse(
                operation=fact.operation,
                sizes=fact.sizes,
                kernel=fact.kernel,
                tier=fact.tier,
                provenance=fact.provenance,
                gain=fact.gain,
            )
            for fact in facts.kernels
        ],
    )
