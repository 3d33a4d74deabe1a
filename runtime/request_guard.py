"""Keeps an error in one request's own work from taking the other requests with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class RequestGuard:
    """Notes which requests failed in a step; the engine ends just those."""

    def __init__(self) -> None:
        self._errors: dict[str, Exception] = {}

    @contextmanager
    def of(self, request_id: str) -> Iterator[None]:
        """Run a block that works for one request alone; an error in it is noted, and stops here."""
        try:
            yield
        except Exception as error:  # the one place where any error may pass: it has one owner
            self._errors.setdefault(request_id, error)

    def has_failed(self, request_id: str) -> bool:
        """Whether an error of this request has been noted and not been taken yet."""
        return request_id in self._errors

    def take(self) -> dict[str, Exception]:
        """Failed requests and their first errors; forgets them."""
        errors, self._errors = self._errors, {}
        return errors
