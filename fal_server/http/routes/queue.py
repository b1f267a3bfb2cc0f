"""The queue over HTTP, as the published clients use it: submit, status, result, cancel, and status as a stream."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from urllib.parse import quote, unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from fal_server.access.authentication import Authenticator
from fal_server.access.permissions import CALL_APPS, allows
from fal_server.core.faults import (
    FailedPrecondition,
    Fault,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from fal_server.core.queue import QueuedRequest, State
from fal_server.http.gateway.app_request import segment
from fal_server.http.routes.hosts import queue_base
from fal_server.http.routes.logs import log_item
from fal_server.http.routes.submitting import key_of, submission_of
from fal_server.http.server.errors import FAILED, HttpError
from fal_server.http.server.messages import error_body
from fal_server.live.dispatch import Dispatcher, RoutedApp
from fal_server.services.queue import Queue, QueueStatus

_OF_ONE = re.compile(r"(?:/.+?)?/requests/(?P<id>[^/]+)(?P<what>/status/stream|/status|/cancel)?/?")
_COMMENT_SECONDS = 15.0
_LOOK_SECONDS = 1.0
_STATUSES: tuple[tuple[type[Fault], int, str], ...] = (
    (InvalidArgument, 400, "bad_request"),
    (FailedPrecondition, 400, "bad_request"),
    (Unauthenticated, 401, "bad_request"),
    (PermissionDenied, 403, "bad_request"),
    (NotFound, 404, "bad_request"),
    (Unavailable, 503, "internal_error"),
)


class QueueRoutes:
    """Everything below /queue/{owner}/{app}. Who may call the app may queue for it, and ask by a request's id.

    A queue host is asked for /{owner}/{app}, and told addresses of that form.

    Args:
        dispatcher: knows the apps that can be queued for.
    """

    def __init__(self, queue: Queue, dispatcher: Dispatcher, access: Authenticator) -> None:
        self._queue = queue
        self._dispatcher = dispatcher
        self._access = access
        self.routes = [Route("/queue/{rest:path}", self._answer, methods=["GET", "POST", "PUT"])]

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._routed(request)
        except HttpError as refusal:
            return _refused(refusal.status, refusal.error_type, refusal.detail)
        except Fault as fault:
            found = ((status, kind) for fault_type, status, kind in _STATUSES if isinstance(fault, fault_type))
            status, kind = next(found, (500, "internal_error"))
            if isinstance(fault, InvalidArgument) and fault.field == "Idempotency-Key":
                status = 422
            return _refused(status, kind, fault.message if status != 500 else FAILED)

    async def _routed(self, request: Request) -> Response:
        raw: bytes = request.scope["raw_path"]
        parts = raw.split(b"/", 4)  # "", "queue", owner, app, the rest
        if len(parts) < 4 or not parts[2] or not parts[3]:
            raise HttpError(
                404, "bad_request", "there is nothing at this path: queue a request at /queue/{owner}/{app}"
            )
        owner, name = segment(parts[2]), segment(parts[3])
        rest = "/" + parts[4].decode("latin-1") if len(parts) == 5 else "/"
        app = self._dispatcher.find(owner, name)
        if app is None:
            raise HttpError(404, "bad_request", f"there is no app {owner}/{name}: see `fal apps list`")
        caller = await self._caller(request, app)
        base = f"{queue_base(_scheme(request), request.url.netloc)}/{quote(owner, safe='')}/{quote(name, safe='')}"
        if request.method == "POST":
            status = await self._queue.submit(await submission_of(request, app.name, rest, caller))
            return JSONResponse(
                document(status, base) | {"queue_position": status.position},
                headers={"x-fal-request-id": status.request.request_id},
            )
        one = _OF_ONE.fullmatch(rest)
        if one is None or (one["what"] == "/cancel") != (request.method == "PUT"):
            raise HttpError(405, "bad_request", f"{request.method} is not possible here: POST queues a request")
        request_id = unquote(one["id"])
        match one["what"]:
            case "/cancel":
                return await self._cancel(app, request_id)
            case "/status":
                return await self._status(request, app, request_id, base)
            case "/status/stream":
                return await self._stream(request, app, request_id, base)
            case _:
                return await self._result(app, request_id)

    async def _caller(self, request: Request, app: RoutedApp) -> str | None:
        """The id of the caller's key; None for a public call.

        Raises:
            Unauthenticated: the app is private, and there is no key or a wrong one.
            Denied: the key may not call apps.
        """
        key = key_of(request)
        if key is None:
            if app.public:
                return None
            raise Unauthenticated("the app is private: send a key as `Authorization: Key ID:SECRET`")
        try:
            principal = self._access.cached(*key) or await self._access.authenticate(*key)
        except Unauthenticated:
            if app.public:
                return None  # a public app needs no key, so a wrong one does not matter
            raise
        if not app.public and not allows(principal, CALL_APPS):
            raise PermissionDenied(f"the key {principal.key_id} may not call apps: use one that may")
        return principal.key_id

    async def _status(self, request: Request, app: RoutedApp, request_id: str, base: str) -> Response:
        status = await self._queue.status(app.name, request_id)
        content = await self._described(status, base, logs=_wants_logs(request))
        done = status.request.state is State.COMPLETED
        return JSONResponse(
            content, status_code=200 if done else 202, headers={"x-fal-request-id": status.request.request_id}
        )

    async def _result(self, app: RoutedApp, request_id: str) -> Response:
        request, answer = await self._queue.result(app.name, request_id)
        if answer is None:
            raise HttpError(400, "bad_request", "Request is still in progress: its status_url says how far it is")
        response = Response(answer.body, answer.status)
        response.raw_headers = [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in answer.headers
            if not name.startswith(("x-fal-stop-runner", "x-fal-needs-retry"))
        ]
        response.raw_headers.append((b"content-length", str(len(answer.body)).encode()))
        response.raw_headers.append((b"x-fal-request-id", request.request_id.encode()))
        if request.error_type is not None and "x-fal-error-type" not in response.headers:
            response.headers["x-fal-error-type"] = request.error_type
        return response

    async def _cancel(self, app: RoutedApp, request_id: str) -> Response:
        status, word, detail = 202, "CANCELLATION_REQUESTED", None
        try:
            await self._queue.cancel(app.name, request_id)
        except FailedPrecondition as fault:
            status, word, detail = 400, "ALREADY_COMPLETED", fault.message
        except NotFound as fault:
            status, word, detail = 404, "NOT_FOUND", fault.message
        content = {"status": word} if detail is None else {"status": word, "detail": detail}
        return JSONResponse(content, status_code=status, headers={"x-fal-request-id": request_id})

    async def _stream(self, request: Request, app: RoutedApp, request_id: str, base: str) -> Response:
        await self._queue.status(app.name, request_id)  # an unknown one is told as such, before the stream begins
        logs = _wants_logs(request)
        draining: asyncio.Event | None = request.scope.get("state", {}).get("draining")

        async def events() -> AsyncGenerator[str]:
            last, silent = "", 0.0
            while True:
                seen = self._queue.news.count
                try:
                    status = await self._queue.status(app.name, request_id)
                    content = await self._described(status, base, logs=logs)
                except Fault as fault:
                    yield f"event: error\ndata: {json.dumps({'detail': fault.message})}\n\n"
                    return
                text = json.dumps(content)
                if text != last:
                    yield f"data: {text}\n\n"
                    last, silent = text, 0.0
                if status.request.state is State.COMPLETED or (draining is not None and draining.is_set()):
                    return
                # Lines of the log come without news, and so does the end of the door.
                if await self._queue.news.wait(seen, _LOOK_SECONDS) == seen:
                    silent += _LOOK_SECONDS
                if silent >= _COMMENT_SECONDS:
                    yield ": waiting\n\n"
                    silent = 0.0

        headers = {"cache-control": "no-cache", "x-fal-request-id": request_id}
        return StreamingResponse(events(), media_type="text/event-stream", headers=headers)

    async def _described(self, status: QueueStatus, base: str, *, logs: bool) -> dict[str, object]:
        content = document(status, base)
        if logs and status.request.state is not State.IN_QUEUE:
            content["logs"] = [log_item(entry) for entry in await self._queue.lines(status.request)]
        return content


def document(status: QueueStatus, base: str) -> dict[str, object]:
    """A request as JSON, in the published words; `logs` is always there, null where they were not asked for."""
    request = status.request
    url = f"{base}/requests/{request.request_id}"
    content: dict[str, object] = {
        "status": request.state.value,
        "request_id": request.request_id,
        "response_url": url,
        "status_url": f"{url}/status",
        "cancel_url": f"{url}/cancel",
        "logs": None,
        "metrics": _metrics(request),
    }
    if request.state is State.IN_QUEUE:
        content["queue_position"] = status.position
    if request.state is State.COMPLETED and request.error is not None:
        content["error"] = request.error
        content["error_type"] = request.error_type
    return content


def _metrics(request: QueuedRequest) -> dict[str, float]:
    if request.state is not State.COMPLETED or request.started_at is None or request.completed_at is None:
        return {}
    return {"inference_time": (request.completed_at - request.started_at).total_seconds()}


def _scheme(request: Request) -> str:
    """Of the addresses that are told: a proxy that ends TLS says so, and who lies about it misleads itself alone."""
    told = request.headers.get("x-forwarded-proto", "")
    return told if told in ("http", "https") else request.url.scheme


def _wants_logs(request: Request) -> bool:
    return request.query_params.get("logs", "").lower() in ("1", "true", "yes")


def _refused(status: int, error_type: str, detail: str) -> Response:
    headers = {"x-fal-error-type": error_type} | ({"www-authenticate": "Key"} if status == 401 else {})
    return Response(error_body(detail, error_type), status, headers, "application/json")
