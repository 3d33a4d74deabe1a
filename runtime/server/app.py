"""Puts the application together: routes, errors, the guard before them."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

import runtime
from runtime.server import metrics
from runtime.server.api_error import ApiError, install_handlers
from runtime.server.chat import chat
from runtime.server.completions import complete
from runtime.server.frontend import Frontend, ServerStatus
from runtime.server.guard import Guard
from runtime.server.openapi import ERRORS, json_or_events, make_schema
from runtime.server.requests import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)
from runtime.server.responses import (
    ChatAnswer,
    CompletionAnswer,
    DetokenizeAnswer,
    ModelCard,
    ModelList,
    TokenizeAnswer,
    VersionAnswer,
)
from runtime.server.status_page import status_routes
from runtime.server.strict_json import StrictRoute
from runtime.server.tokens import detokenize, tokenize


def build_app(front: Frontend) -> ASGIApp:
    """Application of one server; `front` may still be loading."""
    app = FastAPI(
        title="pagetune",
        version=runtime.__version__,
        docs_url=None,  # its pages would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.include_router(_generation(front))
    app.include_router(_models(front))
    app.include_router(_operations(front))
    app.include_router(status_routes(front))
    install_handlers(app)
    make_schema(app, front.config)
    return Guard(app, front.config)


def _generation(front: Frontend) -> APIRouter:
    router = APIRouter(route_class=StrictRoute, responses=ERRORS)

    @router.post("/v1/completions", responses=json_or_events(CompletionAnswer))
    async def create_completion(body: CompletionRequest, request: Request) -> Response:
        """Continue prompts."""
        return await complete(front, body, request)

    @router.post("/v1/chat/completions", responses=json_or_events(ChatAnswer))
    async def create_chat_completion(body: ChatRequest, request: Request) -> Response:
        """Answer a conversation."""
        return await chat(front, body, request)

    @router.post("/tokenize", responses={200: {"model": TokenizeAnswer}})
    async def tokenize_text(body: TokenizeRequest) -> Response:
        """Token ids of a prompt or a conversation."""
        return await tokenize(front, body)

    @router.post("/detokenize", responses={200: {"model": DetokenizeAnswer}})
    async def detokenize_tokens(body: DetokenizeRequest) -> Response:
        """Text of token ids."""
        return await detokenize(front, body)

    return router


def _models(front: Frontend) -> APIRouter:
    router = APIRouter(responses=ERRORS)

    def card(name: str) -> ModelCard:
        return ModelCard(
            id=name,
            object="model",
            created=front.created_s,
            owned_by="pagetune",
            root=front.model_name,
            max_model_len=front.facts.max_model_len,
        )

    @router.get("/v1/models", responses={200: {"model": ModelList}})
    async def list_models() -> Response:
        """The model, by all its names."""
        cards = [card(name) for name in front.config.served_model_names]
        return _json(ModelList(object="list", data=cards).encode())

    @router.get("/v1/models/{model:path}", responses={200: {"model": ModelCard}})
    async def retrieve_model(model: str) -> Response:
        """One model."""
        front.require_model(model)
        return _json(card(model).encode())

    return router


def _operations(front: Frontend) -> APIRouter:
    router = APIRouter(responses=ERRORS)

    @router.get(
        "/health",
        response_class=Response,
        responses={200: {"description": "Requests are taken.", "content": {}}},
    )
    async def health() -> Response:
        """200 if requests are taken; 503 while loading or draining, or without an engine."""
        if front.status is ServerStatus.READY:
            return Response()
        raise ApiError(503, f"not ready: {front.status.value}", headers={"Retry-After": "5"})

    @router.get("/version", responses={200: {"model": VersionAnswer}})
    async def version() -> Response:
        """Version of the server."""
        return _json(VersionAnswer(version=runtime.__version__).encode())

    @router.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def read_metrics() -> Response:
        """Prometheus' page."""
        return Response(front.metrics.page(), headers={"content-type": metrics.CONTENT_TYPE})

    return router


def _json(data: bytes) -> Response:
    return Response(data, media_type="application/json")
