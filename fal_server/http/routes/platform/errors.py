"""Errors of the platform API, in its own form."""

from __future__ import annotations

import json

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ExceptionHandler

from fal_server.http.routes.errors import EXCEPTION_HANDLERS
from fal_server.http.server.asgi import REQUEST_ID

PREFIX = "/v1/"
# By status; others below 500 use the word of 400, and those above that of 500.
_WORDS = {
    400: "validation_error",
    401: "authorization_error",
    403: "authorization_error",
    404: "not_found",
    429: "rate_limited",
    500: "server_error",
    501: "not_implemented",
}


def _in_its_form(handler: ExceptionHandler) -> ExceptionHandler:
    """Return a handler that answers like `handler`. Below /v1 it answers in the platform API's form."""

    def answer(request: Request, error: Exception) -> Response:
        usual = handler(request, error)  # type: ignore[arg-type]  # no route of ours is a WebSocket's
        assert isinstance(usual, Response)
        if not request.url.path.startswith(PREFIX):
            return usual
        detail = json.loads(bytes(usual.body))["detail"]
        word = _WORDS.get(usual.status_code) or _WORDS[400 if usual.status_code < 500 else 500]
        content = {
            "error": {"type": word, "message": detail, "request_id": request.scope.get("state", {}).get(REQUEST_ID, "")}
        }
        headers = {name: usual.headers[name] for name in ("www-authenticate", "allow") if name in usual.headers}
        return Response(json.dumps(content), usual.status_code, headers, "application/json")

    return answer


HANDLERS: dict[type[Exception], ExceptionHandler] = {
    kind: _in_its_form(handler) for kind, handler in EXCEPTION_HANDLERS.items()
}
"""The error handlers of all routes of the controller's port."""
