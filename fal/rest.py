"""The few HTTP requests that the client makes: app files, logs of controllers without our rpcs, the list of teams."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TypeAlias

from fal_grpc.adapter.log import LogEntry, LogLevel, LogOrigin, LogPage
from fal_grpc.adapter.values import JSON
from fal_grpc.channel import ChannelOptions, check_secure, root_certificates, user_agent
from fal_grpc.credentials import Credentials
from fal_grpc.errors import BY_CODE, CallError, UnavailableError, UnknownError
from fal_grpc.target import is_loopback, parse_target

_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_ORIGINS = {origin.value: origin for origin in LogOrigin}
_Object: TypeAlias = "dict[str, JSON]"
Answer: TypeAlias = "http.client.HTTPResponse"


class Rest:
    """The HTTP side of a controller. It keeps no connection.

    Args:
        url: the base address, without a slash at the end.
        credentials: sent with each request; redirects are followed within the host alone, so they stay there.
        options: the deadline, and the certificates to trust.
        account_url: the base address for accounts and app files, which FAL_REST_HOST can move; None means `url`.

    Raises:
        InsecureChannelError: credentials would go in plaintext to another machine.
    """

    def __init__(
        self, url: str, credentials: Credentials, options: ChannelOptions, *, account_url: str | None = None
    ) -> None:
        self._url = url
        self._account_url = account_url or url
        for address in (self._url, self._account_url):
            check_secure(parse_target(address, source="REST address"), credentials)
        self._credentials = credentials
        self._options = options

    def send(
        self, method: str, path: str, body: bytes, content_type: str, *, timeout_seconds: float, own: bool = False
    ) -> JSON:
        """Send a body, as app files and what is said about them are sent.

        Args:
            method: such as "POST".
            path: beginning with a slash.
            body: the bytes.
            content_type: what they are.
            timeout_seconds: how long each step of the exchange may take.
            own: at the controller itself, wherever FAL_REST_HOST leads.

        Returns:
            The JSON that is answered; None where the answer is empty.

        Raises:
            CallError: the controller refused, or cannot be reached.
        """
        base = self._url if own else self._account_url
        request = self._request(method, f"{base}{path}", body=body, accept="application/json")
        request.add_header("Content-Type", content_type)
        return self._json(request, timeout_seconds=timeout_seconds)

    def ask(self, method: str, path: str, **query: str | None) -> JSON:
        """Make a request without a body, as the queue is asked after.

        Args:
            method: such as "GET".
            path: beginning with a slash.
            query: parameters; those that are None are left out.

        Raises:
            CallError: the controller refused, or cannot be reached.
        """
        asked = _query(**query)
        return self._json(
            self._request(method, f"{self._url}{path}{'?' + asked if asked else ''}", accept="application/json")
        )

    def get(self, path: str, *, timeout_seconds: float) -> JSON:
        """The JSON at a path of the controller itself. Raises as `send`."""
        request = self._request("GET", f"{self._url}{path}", accept="application/json")
        return self._json(request, timeout_seconds=timeout_seconds)

    @contextmanager
    def receive(self, path: str, *, timeout_seconds: float) -> Generator[Answer, None, None]:
        """What is at a path of the controller itself, to be read piece by piece. Raises as `send`."""
        with self._open(
            self._request("GET", f"{self._url}{path}", accept="*/*"), timeout_seconds=timeout_seconds
        ) as answer:
            yield answer

    def runner_times(self, runner_id: str) -> tuple[datetime | None, datetime | None]:
        """When a runner started and ended; None for what has not happened.

        Raises:
            NotFoundError: there is no such runner.
        """
        address = f"{self._url}/runners/{urllib.parse.quote(runner_id, safe='')}"
        answer = self._json(self._request("GET", address, accept="application/json"))
        fields = answer if isinstance(answer, dict) else {}
        return parse_moment(fields.get("started_at")), parse_moment(fields.get("ended_at"))

    def log_page(
        self,
        runner_id: str,
        *,
        since: datetime | None,
        until: datetime | None,
        search: str | None,
        page_size: int = 1000,
    ) -> LogPage:
        """Stored lines of a runner, the newest first; the token of the next page is the `until` to ask for it with."""
        query = _query(job_id=runner_id, page_size=str(page_size), search=search, since=since, until=until)
        request = self._request("POST", f"{self._url}/logs/history?{query}", body=b"", accept="application/json")
        answer = self._json(request)
        fields = answer if isinstance(answer, dict) else {}
        items = fields.get("items")
        following = fields.get("next_until")
        return LogPage(
            entries=tuple(_entry(item, runner_id) for item in (items if isinstance(items, list) else [])),
            next_page_token=following if isinstance(following, str) else None,
        )

    def log_stream(
        self, runner_id: str, *, since: datetime | None, search: str | None
    ) -> Generator[LogEntry, None, None]:
        """Lines of a runner as they are written, until the controller ends the stream. Closing it disconnects.

        Raises:
            CallError: the controller refused, or reported an error within the stream.
        """
        query = _query(job_id=runner_id, search=search, since=since)
        request = self._request("POST", f"{self._url}/logs/stream?{query}", body=b"", accept="text/event-stream")
        with self._open(request, timeout_seconds=None) as answer:
            for event, data in _events(answer):
                if event == "error":
                    raise UnknownError(f"The log stream of runner {runner_id} ended with an error: {data}")
                try:
                    item: JSON = json.loads(data)
                except ValueError:
                    # What the published client does with a line that is no JSON: pass over it.
                    continue
                yield _entry(item, runner_id)

    def teams(self) -> list[_Object]:
        """The teams that the user of a login token belongs to, as the controller describes them."""
        answer = self._json(self._request("GET", f"{self._account_url}/users/teams", accept="application/json"))
        return [item for item in answer if isinstance(item, dict)] if isinstance(answer, list) else []

    def _json(self, request: urllib.request.Request, *, timeout_seconds: float | None = None) -> JSON:
        with self._open(request, timeout_seconds=timeout_seconds or self._options.deadline_seconds) as answer:
            body = answer.read()
        if not body.strip():
            return None
        try:
            parsed: JSON = json.loads(body)
        except ValueError:
            raise UnknownError(f"{_without_query(request)} answered with something else than JSON") from None
        return parsed

    def _request(self, method: str, address: str, *, accept: str, body: bytes | None = None) -> urllib.request.Request:
        headers = {"Accept": accept, "User-Agent": user_agent(), **self._credentials.headers()}
        return urllib.request.Request(address, data=body, headers=headers, method=method)  # noqa: S310  # http(s) only

    @contextmanager
    def _open(self, request: urllib.request.Request, *, timeout_seconds: float | None) -> Generator[Answer, None, None]:
        handlers: list[urllib.request.BaseHandler] = [_SameHost()]
        if is_loopback(urllib.parse.urlsplit(request.full_url).hostname or ""):
            # A proxy cannot reach this machine, and must not see its keys.
            handlers.append(urllib.request.ProxyHandler({}))
        if request.type == "https":
            roots = root_certificates(self._options)
            context = ssl.create_default_context(cafile=None if roots is None else str(roots))
            handlers.append(urllib.request.HTTPSHandler(context=context))
        try:
            with urllib.request.build_opener(*handlers).open(request, timeout=timeout_seconds) as answer:
                yield answer
        except urllib.error.HTTPError as error:
            with error:
                raise _refused(error, _without_query(request)) from None
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise UnavailableError(
                f"Could not reach {_without_query(request)}: {reason}. Is the controller running? "
                "`fal up` starts one here; FAL_GRPC_HOST says where else to look."
            ) from None


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only within the host that the credentials are for."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: object,
        code: int,
        msg: str,
        headers: object,
        newurl: str,
    ) -> urllib.request.Request | None:
        old, new = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        if (old.scheme, old.netloc) != (new.scheme, new.netloc):
            return None
        return urllib.request.Request(newurl, data=req.data, headers=dict(req.headers), method=req.get_method())  # noqa: S310


def _without_query(request: urllib.request.Request) -> str:
    return request.full_url.partition("?")[0]


def _refused(error: urllib.error.HTTPError, where: str) -> CallError:
    code = _CODES.get(error.code, "UNKNOWN")
    try:
        body = json.load(error)
        detail = body["detail"] if isinstance(body, dict) and "detail" in body else None
    except (ValueError, OSError, http.client.HTTPException):
        detail = None
    text = detail if isinstance(detail, str) else f"{where} answered {error.code} {error.reason}"
    return BY_CODE[code](text, details=text, target=where, request_id=error.headers.get("x-request-id"))


def _query(**parts: str | datetime | None) -> str:
    return urllib.parse.urlencode(
        {
            name: part.astimezone(UTC).isoformat() if isinstance(part, datetime) else part
            for name, part in parts.items()
            if part is not None
        }
    )


def _events(answer: Answer) -> Generator[tuple[str, str], None, None]:
    """The events of a text/event-stream: their name ("message" unless given) and data."""
    event, data = "message", list[str]()
    for raw in answer:
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if not line:
            if any(data):
                yield event, "\n".join(data)
            event, data = "message", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            event = value
        elif name == "data":
            data.append(value)


def _entry(item: JSON, runner_id: str) -> LogEntry:
    fields = item if isinstance(item, dict) else {"message": str(item)}
    level = str(fields.get("level") or "INFO").upper()
    origin = str(fields.get("source") or "").lower()
    request_id = fields.get("request_id")
    sequence = fields.get("sequence")
    return LogEntry(
        runner_id=runner_id,
        sequence=sequence if isinstance(sequence, int) else 0,
        timestamp=parse_moment(fields.get("timestamp")) or datetime.fromtimestamp(0, UTC),
        level=LogLevel[level] if level in LogLevel.__members__ else LogLevel.UNKNOWN,
        source=_ORIGINS.get(origin, LogOrigin.UNKNOWN),
        message=str(fields.get("message", "")),
        request_id=request_id if isinstance(request_id, str) else "",
        app=str(fields.get("app") or ""),
        revision=str(fields.get("revision") or ""),
    )


def parse_moment(text: JSON) -> datetime | None:
    """A moment from ISO 8601; one without a zone is UTC, as the controllers write them."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
