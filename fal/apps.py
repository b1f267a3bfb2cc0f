"""Calls apps by name. A call goes through the queue, as a stream, or over a WebSocket.

from fal import apps

apps.run("owner/my-app", {"prompt": "a hill"})
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

from fal.app_http import authorization, find_app_hosts, open_client, require_httpx, websocket_arguments
from fal.exceptions import FalServerlessException
from fal.hosts import websocket_url
from fal.http_messages import LineSplitter
from fal.toolkit.utils.retry import retry

if TYPE_CHECKING:
    import httpx

    from fal.websocket import WebSocket

_POLL_SECONDS = 0.2
_READ_SECONDS = 60.0
_OPEN_SECONDS = 90.0
_AGAIN = frozenset({408, 409, 429, 502, 503, 504})


class Credentials(Protocol):
    """Authenticates the caller."""

    def headers(self) -> Mapping[str, str]:
        """Return the headers that authenticate a request."""
        ...


@dataclass
class _Status:
    pass


@dataclass
class Queued(_Status):
    """The request waits; `position` counts the requests ahead of it."""

    position: int


@dataclass
class InProgress(_Status):
    """An app works on the request. `logs` has its lines if they were asked for."""

    logs: list[dict[str, object]] | None


@dataclass
class Completed(_Status):
    """The request has ended. `error` and `error_type` say why it failed, or are None."""

    logs: list[dict[str, object]] | None
    error: str | None = None
    error_type: str | None = None


class _Caller:
    """The credentials of this program, resolved at first use."""

    def headers(self) -> Mapping[str, str]:
        return authorization()


@dataclass
class RequestHandle:
    """A request in an app's queue.

    Attributes:
        app_id: the app with its owner, without a path.
        request_id: the request's id.
    """

    app_id: str
    request_id: str
    _client: object = field(default=None, repr=False)
    _creds: Credentials = field(default_factory=_Caller, repr=False)

    def __post_init__(self) -> None:
        parts = _named(self.app_id).split("/")
        self.app_id = "/".join(parts[: 3 if parts[0] == "workflows" else 2])

    def status(self, *, logs: bool = False) -> Queued | InProgress | Completed:
        """Return the current status of the request.

        Args:
            logs: also return the app's log lines.

        Raises:
            httpx.HTTPStatusError: the platform refused.
        """
        answer = self._read("/status", {"logs": "1" if logs else "0"})
        found = answer.json()
        state = found.get("status")
        if state == "IN_QUEUE":
            return Queued(position=found["queue_position"])
        if state == "IN_PROGRESS":
            return InProgress(logs=found.get("logs"))
        if state == "COMPLETED":
            return Completed(logs=found.get("logs"), error=found.get("error"), error_type=found.get("error_type"))
        raise FalServerlessException(f"the request {self.request_id} has a status that is not known here: {state}")

    def iter_events(self, *, logs: bool = False, poll_seconds: float = _POLL_SECONDS) -> Generator[Queued | InProgress]:
        """Yield the request's status repeatedly until it is completed."""
        while not isinstance(found := self.status(logs=logs), Completed):
            yield found
            time.sleep(poll_seconds)

    def cancel(self) -> None:
        """Ask the platform to cancel the request.

        Raises:
            httpx.HTTPStatusError: the platform refused, for example because the request is completed.
        """
        _send("PUT", f"{self._place}/cancel", self._creds.headers())

    def fetch_raw_response(self) -> httpx.Response:
        """Return the app's response to a completed request.

        Raises:
            httpx.HTTPStatusError: the app answered with an error; the message has its text.
        """
        return self._read("", {})

    def fetch_result(self) -> dict[str, object]:
        """Return the JSON of a completed request's response. Raises the errors of `fetch_raw_response`."""
        found: dict[str, object] = self.fetch_raw_response().json()
        return found

    def get(self) -> dict[str, object]:
        """Wait until the request is completed, and return the response's JSON.

        Raises the errors of `fetch_raw_response`.
        """
        for _ in self.iter_events():
            continue
        return self.fetch_result()

    def _read(self, path: str, query: Mapping[str, str]) -> httpx.Response:
        return _read(self._place + path, query, self._creds.headers())

    @property
    def _place(self) -> str:
        return f"{find_app_hosts().queue}/{_path(self.app_id)}/requests/{self.request_id}"


def run(app_id: str, arguments: Mapping[str, object], *, path: str = "") -> dict[str, object]:
    """Call an app through its queue, and return the response's JSON.

    Args:
        app_id: "owner/my-app", optionally followed by a path.
        arguments: the request's body.
        path: the endpoint's path; "" means the path in `app_id`, or "/" if it has none.

    Raises:
        httpx.HTTPStatusError: the platform refused, or the app answered with an error.
    """
    return submit(app_id, arguments, path=path).get()


def submit(app_id: str, arguments: Mapping[str, object], *, path: str = "") -> RequestHandle:
    """Submit a request to an app's queue, and return its handle. Takes the arguments of `run` and raises its errors."""
    place = f"{find_app_hosts().queue}/{_path(app_id, path)}"
    answer = _send("POST", place, _Caller().headers(), arguments)
    return RequestHandle(app_id=app_id, request_id=answer.json()["request_id"])


def stream(app_id: str, arguments: Mapping[str, object], *, path: str = "") -> Iterator[str | bytes]:
    """Call an app, and yield its response as it arrives.

    Takes the arguments of `run` and raises its errors.

    Yields:
        The non-empty lines of a text/event-stream, or the bytes of any other response.
    """
    require_httpx()
    import httpx

    place = f"{find_app_hosts().run}/{_path(app_id, path)}"
    patient = httpx.Timeout(None, connect=_READ_SECONDS)
    with (
        open_client(place, _Caller().headers(), patient) as client,
        client.stream("POST", place, json=dict(arguments)) as answer,
    ):
        if not answer.is_success:
            answer.read()
        _check(answer)
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            yield from _lines(answer)
        else:
            yield from answer.iter_bytes()


class WebSocketCall:
    """Calls an HTTP endpoint repeatedly over one WebSocket; created by `ws`."""

    def __init__(self, connection: WebSocket) -> None:
        self._connection = connection
        self._held: str | bytes | None = None

    def run(self, arguments: Mapping[str, object]) -> bytes:
        """Send a request, and return its complete response."""
        self.send(arguments)
        return self.recv()

    def send(self, arguments: Mapping[str, object]) -> None:
        """Send a request; `recv` or `stream` returns its response."""
        self._connection.send(json.dumps(arguments))

    def recv(self) -> bytes:
        """Return the complete response to the oldest unanswered request."""
        return b"".join(part.encode() if isinstance(part, str) else part for part in self.stream())

    def stream(self) -> Generator[str | bytes]:
        """Yield the parts of a response as they arrive.

        Raises:
            FalServerlessException: the messages do not belong to one response.
        """
        started = _about(self._connection.recv())
        if started is None or started.get("type") != "start":
            raise FalServerlessException("the answer over the WebSocket did not begin with a start message")
        while (about := _about(part := self._connection.recv())) is None:
            yield part
        if about.get("type") != "end" or about.get("request_id") != started.get("request_id"):
            raise FalServerlessException(f"the answer over the WebSocket did not end, but said {about.get('type')}")


@contextmanager
def ws(app_id: str, *, path: str = "") -> Generator[WebSocketCall]:
    """Open a WebSocket to an HTTP endpoint for many requests.

    Args:
        app_id, path: as in `run`.
    """
    from websockets.asyncio.client import connect

    from fal.websocket import WebSocket

    place = f"{find_app_hosts().ws}/{_path(app_id, path)}"
    options = websocket_arguments(place, _Caller().headers())
    with WebSocket(connect(websocket_url(place), open_timeout=_OPEN_SECONDS, **options)) as connection:
        yield WebSocketCall(connection)


def address(app_id: str) -> str:
    """Return the address for direct calls to an app."""
    return f"{find_app_hosts().run}/{_path(app_id)}"


def _named(app_id: str) -> str:
    """Return the app id with its owner. An older form separates the two with a dash."""
    return app_id.strip("/") if "/" in app_id else app_id.replace("-", "/", 1)


def _path(app_id: str, path: str = "") -> str:
    inner = path.strip("/")
    return f"{_named(app_id)}/{inner}" if inner else _named(app_id)


def _lines(answer: httpx.Response) -> Iterator[str]:
    splitter = LineSplitter()
    for chunk in answer.iter_bytes():
        yield from filter(None, splitter.feed(chunk))
    if rest := splitter.rest():
        yield rest


def _about(part: str | bytes) -> Mapping[str, object] | None:
    """Return a control message about the response. None if `part` belongs to the response itself."""
    if not isinstance(part, str):
        return None
    try:
        found: object = json.loads(part)
    except ValueError:
        return None
    if not isinstance(found, dict) or not {"type", "request_id"} <= found.keys():
        return None
    return cast("Mapping[str, object]", found)


def _worth_another(error: Exception) -> bool:
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        # A response with the request's id came from the app itself: asking again would give the same one.
        return error.response.status_code in _AGAIN and "x-fal-request-id" not in error.response.headers
    return isinstance(error, httpx.TransportError)


@retry(max_retries=10, base_delay=0.1, max_delay=30.0, jitter=True, should_retry=_worth_another)
def _read(place: str, query: Mapping[str, str], headers: Mapping[str, str]) -> httpx.Response:
    return _send("GET", place, headers, query=query)


def _send(
    method: str,
    place: str,
    headers: Mapping[str, str],
    body: Mapping[str, object] | None = None,
    query: Mapping[str, str] | None = None,
) -> httpx.Response:
    with open_client(place, headers, _READ_SECONDS) as client:
        answer = client.request(
            method, place, json=None if body is None else dict(body), params=None if query is None else dict(query)
        )
    _check(answer)
    return answer


def _check(answer: httpx.Response) -> None:
    import httpx

    if not answer.is_success:
        said = f"{answer.status_code}: {answer.text[:2000]}"
        raise httpx.HTTPStatusError(said, request=answer.request, response=answer)
