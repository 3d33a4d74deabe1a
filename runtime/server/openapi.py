"""What /openapi.json says, kept to what the server does."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from runtime.server.config import ServerConfig
from runtime.server.guard import OPEN_PATHS
from runtime.server.responses import ErrorAnswer

_MEANINGS = {
    400: "The request is at fault; `param` names the field.",
    401: "The key is missing or wrong.",
    404: "No such model.",
    405: "The path does not take this method.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    431: "Too many or too large headers.",
    500: "The engine failed on this request, or has died.",
    503: "The queue is full, or the server is loading or draining; see Retry-After.",
}

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": text} for status, text in _MEANINGS.items()
}
"""Every route's."""

_WITH_MODEL = ("CompletionRequest", "ChatRequest", "TokenizeRequest", "DetokenizeRequest")

_EVENTS = (
    "With stream=true: server-sent events, each a JSON chunk; an error ends the stream as "
    '`{"error": …}`; the last event is `[DONE]`.'
)


def json_or_events(answer: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """Response of an endpoint that streams if asked to."""
    events = {"schema": {"description": _EVENTS}}
    return {200: {"model": answer, "content": {"text/event-stream": events}}}


def make_schema(app: FastAPI, config: ServerConfig) -> None:
    """Have the application give this schema."""

    def schema() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(title=app.title, version=app.version, routes=app.routes)
            _mend(found, config)
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = schema  # type: ignore[method-assign]


def _mend(schema: dict[str, Any], config: ServerConfig) -> None:
    """Take out what FastAPI supposes of every application, put in the key and the models."""
    has_key = bool(config.api_keys)
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            if has_key and path not in OPEN_PATHS:
                operation["security"] = [{"key": []}]
    components = schema["components"]
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    names = {"enum": [*config.served_model_names, None], "title": "Model"}
    for name in _WITH_MODEL:
        components["schemas"][name]["properties"]["model"] = names
    if has_key:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
