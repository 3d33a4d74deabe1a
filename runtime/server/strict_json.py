"""Reads a body as JSON and as nothing else: no duplicate keys, no NaN, no half characters."""

from __future__ import annotations

import json
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from runtime.server.api_error import ApiError, bad_request, shorten
from runtime.server.config import MAX_JSON_KEYS


class StrictRequest(Request):
    """A request whose JSON is read strictly."""

    async def json(self) -> Any:
        """The body.

        Raises:
            ApiError: 400, it is not JSON as the standard has it.
        """
        if not hasattr(self, "_json"):
            self._json = parse(await self.body())
        return self._json


class StrictRoute(APIRoute):
    """A route whose body is read strictly."""

    def get_route_handler(self) -> Any:
        """FastAPI's hook: wrap the handler."""
        handler = super().get_route_handler()
        has_body = self.body_field is not None

        async def handle(request: Request) -> Response:
            if has_body:
                kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
                if kind != "application/json":
                    raise ApiError(415, "the body must be of content type application/json")
            response: Response = await handler(StrictRequest(request.scope, request.receive))
            return response

        return handle


def parse(body: bytes) -> Any:
    """Parse a JSON text.

    Raises:
        ApiError: 400, with the reason.
    """
    try:
        text = body.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise bad_request(None, "the JSON body is nested too deeply") from None
    except ValueError as error:
        reason = shorten(str(error), 120)
        raise bad_request(None, f"the body is not valid JSON: {reason}") from None
    if "\\ud" in text or "\\uD" in text:
        try:
            # Escaped halves of a character become strings that no encoder takes.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise bad_request(None, "the JSON body holds half a surrogate pair") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_JSON_KEYS:
        raise ValueError(f"an object has more than {MAX_JSON_KEYS} keys")
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same key twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
