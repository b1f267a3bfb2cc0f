"""Errors of the controller's own routes, in their common form."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ExceptionHandler

from fal_server.core.faults import Fault
from fal_server.http.server.errors import HttpError
from fal_server.http.server.faults import http_error
from fal_server.http.server.messages import error_body


def _answer_fault(request: Request, error: Exception) -> Response:
    assert isinstance(error, Fault)
    return _answer_http_error(request, http_error(error))


def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HttpError)
    headers = {"x-fal-error-type": error.error_type}
    if error.status == 401:
        headers["www-authenticate"] = "Key"
    body = error_body(error.detail, error.error_type)
    return Response(body, error.status, headers, "application/json")


def _answer_unrouted(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = error.detail
    if error.status_code == 404:
        detail = "page not found: apps are called at /{owner}/{app}"
    elif error.status_code == 405:
        detail = f"{request.method} is not possible on {request.url.path}"
    response = _answer_http_error(request, HttpError(error.status_code, "bad_request", detail))
    response.headers.update(error.headers or {})
    return response


EXCEPTION_HANDLERS: dict[type[Exception], ExceptionHandler] = {
    Fault: _answer_fault,
    HttpError: _answer_http_error,
    HTTPException: _answer_unrouted,
}
"""The error handlers of every ASGI application of the controller."""
