"""Errors as OpenAI shapes them, whoever raises them; the words are bounded, and echo little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from runtime.errors import EngineError, InvalidParameterError

MAX_ERRORS = 10
MAX_CHARS = 200
_MAX_NAME_CHARS = 60

_TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    408: "RequestTimeoutError",
    413: "RequestTooLargeError",
    415: "UnsupportedMediaTypeError",
    431: "HeadersTooLargeError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
}


class ApiError(HTTPException):
    """An answer other than success; `param` names the field at fault."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers) if headers else None)
        self.param = param


def bad_request(param: str | None, message: str) -> ApiError:
    """400, naming the field."""
    return ApiError(400, message, param)


def busy(message: str, retry_after_s: int = 1) -> ApiError:
    """503 that is worth a retry."""
    return ApiError(503, message, headers={"Retry-After": str(retry_after_s)})


def error_body(status: int, message: str, param: str | None = None) -> dict[str, Any]:
    """The JSON object of an error; also sent within a stream."""
    kind = _TYPES.get(status, "BadRequestError" if status < 500 else "InternalServerError")
    return {
        "error": {
            "message": shorten(message, 2 * MAX_CHARS),
            "type": kind,
            "param": param,
            "code": status,
        }
    }


def error_response(error: HTTPException) -> Response:
    """The whole answer."""
    param = error.param if isinstance(error, ApiError) else None
    return Response(
        msgspec.json.encode(error_body(error.status_code, str(error.detail), param)),
        error.status_code,
        headers=error.headers,
        media_type="application/json",
    )


def from_engine_error(error: EngineError, names: Mapping[str, str] | None = None) -> ApiError:
    """400 for what the engine would refuse, by the field's name in the API."""
    field = error.field if isinstance(error, InvalidParameterError) else None
    if field is not None and names is not None:
        field = names.get(field, field)
    return bad_request(field, str(error))


def from_validation(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """400 for the first few of the fields that do not fit their schema, without their values."""
    lines: dict[str, str] = {}
    for error in errors[: 8 * MAX_ERRORS]:
        name = _field_name(error["loc"])
        if error["type"] == "extra_forbidden":
            text = "is not a field of this request, or not supported"
        else:
            text = str(error["msg"]).removeprefix("Value error, ")
        lines.setdefault(name, f"{name}: {shorten(text, MAX_CHARS)}" if name else text)
    shown = list(lines.values())[:MAX_ERRORS]
    param = next(iter(lines), None)
    return bad_request(param or None, "; ".join(shown))


def shorten(text: str, length: int) -> str:
    """Cut a text that may come from a client."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _field_name(location: Sequence[int | str]) -> str:
    """Dotted path of a field; the tags that unions add to it are left out."""
    parts = location[1:] if location[:1] == ("body",) else location
    tags = {"str", "int", "float", "bool", "list", "dict"}
    kept = [
        str(part)
        for index, part in enumerate(parts)
        if index == 0 or isinstance(part, int) or (part.isidentifier() and part not in tags)
    ]
    return shorten(".".join(kept), _MAX_NAME_CHARS)


def install_handlers(app: FastAPI) -> None:
    """Shape every error that leaves a handler, and those of the router."""

    async def on_http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return error_response(error)

    async def on_validation(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return error_response(from_validation(error.errors()))

    async def on_other(_: Request, __: Exception) -> Response:
        # The traceback goes to the log alone.
        return error_response(ApiError(500, "the server failed on this request"))

    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(Exception, on_other)
