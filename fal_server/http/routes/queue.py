"""The queue over HTTP, in the published clients' form. It has submit, status, result, cancel, and a status stream."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from urllib.parse import quote, unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fal_server.core.faults import FailedPrecondition, Fault, NotFound
from fal_server.core.identity import Principal
from fal_server.core.queue import QueuedRequest, State
from fal_server.http.gateway.app_request import segment
from fal_server.http.gateway.passing import kept_in_app
from fal_server.http.routes.event_stream import COMMENT, COMMENT_SECONDS, event, event_stream
from fal_server.http.routes.guard import Guard
from fal_server.http.routes.hosts import queue_base
from fal_server.http.routes.parameters import switch
from fal_server.http.routes.runners import log_item
from fal_server.http.routes.submission import BodyRoom, submission_of
from fal_server.http.server.errors import HttpError
from fal_server.live.dispatch import NOWHERE, Dispatcher, RoutedApp
from fal_server.live.rates import Rates
from fal_server.services.queue import Queue, QueueStatus, unknown_request

_OF_ONE = re.compile(r"(?:/.+?)?/requests/(?P<id>[^/]+)(?P<action>/status/stream|/status|/cancel)?/?")
_LOOK_SECONDS = 1.0


class QueueRoutes:
    """Everything below /queue/{owner}/{app}. A caller of the app may queue requests and access them by id.

    On a queue host the paths, and the addresses in responses, are /{owner}/{app}.
    """

    def __init__(self, queue: Queue, dispatcher: Dispatcher, guard: Guard, rates: Rates) -> None:
        self._queue = queue
        self._dispatcher = dispatcher
        self._guard = guard
        self._rates = rates
        self._room = BodyRoom()
        methods = ("GET", "POST", "PUT")
        self.routes = [guard.open_route(method, "/queue/{rest:path}", self._answer) for method in methods]

    async def _answer(self, request: Request) -> Response:
        raw: bytes = request.scope["raw_path"]
        parts = raw.split(b"/", 4)  # "", "queue", owner, app, the rest
        if len(parts) < 4 or not parts[2] or not parts[3]:
            raise NotFound("page", "queue a request at /queue/{owner}/{app}")
        owner, name = segment(parts[2]), segment(parts[3])
        rest = "/" + parts[4].decode("latin-1") if len(parts) == 5 else "/"
        app = self._dispatcher.find(owner, name) or NOWHERE
        caller = await self._guard.caller_of_app(request, app)
        home = f"/{quote(owner, safe='')}/{quote(name, safe='')}"
        base = queue_base(scheme_of(request), request.url.netloc) + home
        if request.method == "POST":
            status = await self._submit(request, app, rest, None if caller is None else caller.key_id)
            return JSONResponse(
                document(status, base) | {"queue_position": status.position},
                headers={"x-fal-request-id": status.request.request_id},
            )
        one = _OF_ONE.fullmatch(rest)
        if one is None or (one["action"] == "/cancel") != (request.method == "PUT"):
            raise HttpError(405, "bad_request", f"{request.method} is not possible here: POST queues a request")
        request_id = unquote(one["id"])
        await self._check_reader(caller, app, request_id)
        match one["action"]:
            case "/cancel":
                return await self._cancel(app, request_id)
            case "/status":
                return await self._status(request, app, request_id, base)
            case "/status/stream":
                return await self._stream(request, app, request_id, base)
            case _:
                return await self._result(app, request_id, home)

    async def _submit(self, request: Request, app: RoutedApp, path: str, key_id: str | None) -> QueueStatus:
        client = request.client
        self._rates.count(app, key_id, lambda: "" if client is None else client.host)
        if key_id is not None:
            return await self._queue.submit(await submission_of(request, app, path, key_id, _take_all))
        with self._room.share() as take:
            return await self._queue.submit(await submission_of(request, app, path, None, take))

    async def _check_reader(self, caller: Principal | None, app: RoutedApp, request_id: str) -> None:
        """Allow only a key's account and the app's to access a request. The request was made with the key.

        Raises:
            NotFound: there is no such request for this caller.
        """
        try:
            request = (await self._queue.status(app.app_id, request_id)).request
        except NotFound:
            return  # each response reports that itself
        if not await self._guard.is_of(caller, request.caller, app):
            raise unknown_request(app.app_id, request_id)

    async def _status(self, request: Request, app: RoutedApp, request_id: str, base: str) -> Response:
        status = await self._queue.status(app.app_id, request_id)
        content = await self._described(status, base, logs=switch(request, "logs"))
        done = status.request.state is State.COMPLETED
        return JSONResponse(
            content, status_code=200 if done else 202, headers={"x-fal-request-id": status.request.request_id}
        )

    async def _result(self, app: RoutedApp, request_id: str, home: str) -> Response:
        request, answer = await self._queue.result(app.app_id, request_id)
        if answer is None:
            raise HttpError(400, "bad_request", "Request is still in progress: its status_url says how far it is")
        response = Response(answer.body, answer.status)
        response.raw_headers = [
            (name.encode("latin-1"), kept)
            for name, value in answer.headers
            if not name.startswith(("x-fal-stop-runner", "x-fal-needs-retry"))
            and (kept := kept_in_app(name.encode("latin-1"), value.encode("latin-1"), home.encode())) is not None
        ]
        response.raw_headers.append((b"content-length", str(len(answer.body)).encode()))
        response.raw_headers.append((b"x-fal-request-id", request.request_id.encode()))
        if request.error_type is not None and "x-fal-error-type" not in response.headers:
            response.headers["x-fal-error-type"] = request.error_type
        return response

    async def _cancel(self, app: RoutedApp, request_id: str) -> Response:
        """Cancel, and answer in the published clients' form."""
        status, word, detail = 202, "CANCELLATION_REQUESTED", None
        try:
            await self._queue.cancel(app.app_id, request_id)
        except FailedPrecondition as fault:
            status, word, detail = 400, "ALREADY_COMPLETED", fault.message
        except NotFound as fault:
            status, word, detail = 404, "NOT_FOUND", fault.message
        content = {"status": word} if detail is None else {"status": word, "detail": detail}
        return JSONResponse(content, status_code=status, headers={"x-fal-request-id": request_id})

    async def _stream(self, request: Request, app: RoutedApp, request_id: str, base: str) -> Response:
        await self._queue.status(app.app_id, request_id)  # so that an unknown request is a 404 rather than an event
        logs = switch(request, "logs")
        draining: asyncio.Event = request.scope["state"]["draining"]

        async def events() -> AsyncGenerator[bytes]:
            last, silent_seconds = "", 0.0
            while True:
                seen = self._queue.requests_changed.count
                try:
                    status = await self._queue.status(app.app_id, request_id)
                    content = await self._described(status, base, logs=logs)
                except Fault as fault:
                    yield event(json.dumps({"detail": fault.message}), "error")
                    return
                text = json.dumps(content)
                if text != last:
                    yield event(text)
                    last, silent_seconds = text, 0.0
                if status.request.state is State.COMPLETED or draining.is_set():
                    return
                # Log lines do not notify, and neither does draining.
                if await self._queue.requests_changed.wait(seen, _LOOK_SECONDS) == seen:
                    silent_seconds += _LOOK_SECONDS
                if silent_seconds >= COMMENT_SECONDS:
                    yield COMMENT
                    silent_seconds = 0.0

        return event_stream(events(), {"x-fal-request-id": request_id})

    async def _described(self, status: QueueStatus, base: str, *, logs: bool) -> dict[str, object]:
        content = document(status, base)
        if logs and status.request.state is not State.IN_QUEUE:
            content["logs"] = [log_item(entry) for entry in await self._queue.lines(status.request)]
        return content


def document(status: QueueStatus, base: str) -> dict[str, object]:
    """Return a request in the published form. `logs` is always present, because the published clients need the key."""
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
        content |= waits(status)
    if request.state is State.COMPLETED and request.error is not None:
        content["error"] = request.error
        content["error_type"] = request.error_type
    return content


def waits(status: QueueStatus) -> dict[str, object]:
    """Return why a request waits, as additional keys. There are none if others are ahead or it is its turn."""
    delay = status.delay
    if delay is None:
        return {}
    at = delay.next_try_at
    return {"reason": delay.reason, "next_try_at": None if at is None else at.isoformat()}


def _metrics(request: QueuedRequest) -> dict[str, float]:
    if request.state is not State.COMPLETED or request.started_at is None or request.completed_at is None:
        return {}
    return {"inference_time": (request.completed_at - request.started_at).total_seconds()}


def scheme_of(request: Request) -> str:
    """Return the scheme for addresses in responses. A TLS proxy names it, and a liar only misleads itself."""
    forwarded = request.headers.get("x-forwarded-proto", "")
    return forwarded if forwarded in ("http", "https") else request.url.scheme


def _take_all(_size: int) -> None:
    """Set no additional limit: a caller with a key is known."""
