"""Requests, responses and their parsing. The blocking and the asyncio HTTP client share them."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypedDict
from urllib.parse import urljoin, urlsplit
from uuid import uuid4

from fal.hosts import variable_of
from fal_grpc.channel import client_certificate, root_certificates
from fal_grpc.channel import user_agent as user_agent
from fal_grpc.errors import BY_HTTP_STATUS, CallError, UnavailableError, UnknownError, not_running
from fal_grpc.target import is_loopback

if TYPE_CHECKING:
    import httpx

    from fal_grpc.adapter.values import JSON
    from fal_grpc.channel import ChannelOptions

MAX_REDIRECTS = 5
CONNECT_SECONDS = 30.0
_LONGEST_DETAILS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """An HTTP request.

    Attributes:
        timeout_seconds: how long each step (connect, send, receive) may take; None means no limit.
    """

    method: str
    url: str
    content: bytes | None = None
    headers: Mapping[str, str]
    timeout_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """A response with its complete body; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    url: str

    def json(self) -> JSON:
        """Parse the body; an empty body is None.

        Raises:
            UnknownError: it is not JSON.
        """
        if not self.content.strip():
            return None
        try:
            parsed: JSON = json.loads(self.content)
        except (ValueError, RecursionError):
            raise UnknownError(f"{without_query(self.url)} did not answer with JSON") from None
        return parsed


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSentEvent:
    """An event of a text/event-stream. `name` is "message" unless the server gives one."""

    name: str
    data: str


class LineSplitter:
    """Splits chunks of bytes into lines by the HTML standard's rules.

    Lines end only at LF, CR or CRLF: `str.splitlines` would also split at other characters.
    """

    def __init__(self) -> None:
        self._pending = b""
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[str]:
        """Add the next bytes, and return the lines that they complete."""
        if self._after_cr and chunk:
            self._after_cr, chunk = False, chunk.removeprefix(b"\n")
        self._after_cr = self._after_cr or chunk.endswith(b"\r")
        *lines, rest = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        if lines:
            lines[0], self._pending = self._pending + lines[0], b""
        self._pending += rest
        return [line.decode("utf-8", "replace") for line in lines]

    def rest(self) -> str:
        """Return the last line if it has no line ending."""
        return self._pending.decode("utf-8", "replace")


class EventParser:
    """Parses a text/event-stream that arrives in chunks."""

    def __init__(self) -> None:
        self._lines = LineSplitter()
        self._name = "message"
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Add the next bytes, and return the events that they complete."""
        return [event for line in self._lines.feed(chunk) if (event := self._take(line)) is not None]

    def _take(self, line: str) -> ServerSentEvent | None:
        if not line:
            event = ServerSentEvent(name=self._name, data="\n".join(self._data)) if self._data else None
            self._name, self._data = "message", []
            return event
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value or "message"
        elif field == "data":
            self._data.append(value)
        return None


def file_form(content: bytes, file_name: str, field: str = "file_upload") -> tuple[bytes, str]:
    """Return a multipart/form-data body (RFC 7578) with one file. Also return its content type.

    Args:
        content: the file's content.
        file_name: the file's name; characters that a header cannot hold become "_".
        field: the form's field.
    """
    boundary = uuid4().hex
    name = "".join(letter if " " <= letter <= "~" and letter not in '"\\' else "_" for letter in file_name)
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return head.encode() + content + f"\r\n--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def status_error(status: int, headers: Mapping[str, str], content: bytes, url: str) -> CallError:
    """Return the error for an HTTP status, with the body's message."""
    where = without_query(url)
    answered = f"{where} answered {status} {_phrase(status)}".rstrip()
    try:
        body: object = json.loads(content)
    except (ValueError, RecursionError):
        # An HTML page, for example a proxy's, has no message that fits on one line.
        html = "html" in headers.get("content-type", "")
        body = "" if html else content.decode("utf-8", "replace").strip()
    detail = _detail(body) if isinstance(body, dict) else body
    details = _in_words(detail)[:_LONGEST_DETAILS]
    stands_alone = isinstance(body, dict) and isinstance(detail, str)
    error = BY_HTTP_STATUS.get(status, UnknownError)
    return error(
        details if stands_alone else f"{answered}: {details}" if details else answered,
        details=details,
        target=where,
        request_id=headers.get("x-fal-request-id", headers.get("x-request-id")),
        http_status=status,
    )


def _detail(body: Mapping[str, object]) -> object:
    """Return the message of an error body: REST, the platform API and gRPC over HTTP each have their own form."""
    error = body.get("error")
    if "detail" not in body and isinstance(error, dict) and isinstance(error.get("message"), str):
        return error["message"]
    if "detail" not in body and "code" in body and isinstance(body.get("message"), str):
        return body["message"]
    return body.get("detail", body)


def _in_words(detail: object) -> str:
    if isinstance(detail, str):
        return detail
    if detail and isinstance(detail, list) and all(isinstance(item, dict) and "msg" in item for item in detail):
        # FastAPI's list of invalid arguments.
        places = (".".join(str(part) for part in item.get("loc", ()) if part != "body") for item in detail)
        problems = zip(places, detail, strict=True)
        return "; ".join(f"{place}: {item['msg']}" if place else str(item["msg"]) for place, item in problems)
    return json.dumps(detail) if detail else ""


def without_query(url: str) -> str:
    """Return the address without its query for messages. The query can hold the user's input."""
    return url.partition("?")[0]


def _phrase(status: int) -> str:
    from http import HTTPStatus

    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def headers_of(request: HttpRequest) -> dict[str, str]:
    """Return the headers to send."""
    # The length of a compressed body would not tell how much of a file is missing.
    return {"User-Agent": user_agent(), "Accept-Encoding": "identity", **request.headers}


def timeout_of(seconds: float | None) -> httpx.Timeout:
    """Return the timeouts of a request."""
    import httpx

    return httpx.Timeout(seconds, connect=CONNECT_SECONDS if seconds is None else seconds)


def length_of(response: httpx.Response) -> int | None:
    """Return the body's length, if the server says it."""
    text = response.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def redirect_of(response: httpx.Response, url: str) -> str | None:
    """Return the redirect's target if it keeps the scheme, host and port."""
    if response.status_code not in (301, 302, 303, 307, 308) or "location" not in response.headers:
        return None
    target = urljoin(url, response.headers["location"])
    old, new = urlsplit(url), urlsplit(target)
    return target if (old.scheme, old.netloc) == (new.scheme, new.netloc) else None


class ClientArguments(TypedDict):
    """How an httpx client verifies certificates. Also says whether it uses the environment's proxies."""

    verify: ssl.SSLContext | bool
    trust_env: bool


class ClientKind(NamedTuple):
    """Whether a URL is on this machine, and whether it uses TLS."""

    local: bool
    tls: bool


def kind_of(url: str) -> ClientKind:
    """Return the kind of httpx client for a URL."""
    parts = urlsplit(url)
    return ClientKind(local=is_loopback(parts.hostname or ""), tls=parts.scheme == "https")


def client_arguments(url: str, options: ChannelOptions) -> ClientArguments:
    """Return the arguments of a URL's httpx client. A proxy must not see this machine's keys."""
    kind = kind_of(url)
    # Plaintext needs no verification, and loading the system's CA certificates takes time.
    return ClientArguments(verify=tls_context(options) if kind.tls else False, trust_env=not kind.local)


def tls_context(options: ChannelOptions) -> ssl.SSLContext:
    """Return how to verify a server's certificate. It includes the client certificate to present if asked.

    Raises:
        ConfigError: the CA file or the client certificate cannot be used.
    """
    roots, own = root_certificates(options), client_certificate(options)
    context = ssl.create_default_context(cafile=None if roots is None else str(roots))
    if own is not None:
        context.load_cert_chain(*own)
    return context


@contextmanager
def translated(url: str, options: ChannelOptions) -> Generator[None]:
    """Raise the client's own error for any error of httpx.

    Args:
        url: where the request goes.
        options: what starts the controller if it is on this machine, and what names it.
    """
    import httpx

    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise UnavailableError(
            f"Could not reach {without_query(url)}: {_reason(error)}. "
            f"{not_running(options.start_command, variable_of(url) or options.named_by)}"
        ) from None


def _reason_of_tls(error: BaseException) -> str:
    reason = str(getattr(error, "reason", ""))
    if reason == "WRONG_VERSION_NUMBER":
        return "it does not speak TLS, so write http:// before its address"
    return f"TLS failed: {getattr(error, 'verify_message', None) or reason}"


def _reason(error: BaseException) -> str:
    """Return the operating system's message if there is one. Often httpx keeps it in a cause."""
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "library", None) == "SSL":  # whose numbers are none of the operating system
            return _reason_of_tls(cause)
        if isinstance(cause, OSError) and cause.errno:
            # asyncio replaces the message, and name resolution has its own error numbers.
            return os.strerror(cause.errno) if cause.errno > 0 else str(cause.strerror)
        cause = cause.__cause__ or cause.__context__
    return str(error).rstrip(".") or type(error).__name__
