"""The HTTP client of `fal api`: one kept connection, answers read as they arrive."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fal.http_messages import EventParser, kind_of, tls_context, user_agent
from fal_cli.exit_codes import CommandError

if TYPE_CHECKING:
    from fal.api import JSON
    from fal.settings import Settings

_CONNECT_SECONDS = 30.0


class Answer:
    """Read an HTTP answer, whose body has not been read yet."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self.status = response.status
        self.content_type = (response.getheader("content-type") or "").partition(";")[0].strip().lower()
        self.request_id = response.getheader("x-fal-request-id")

    def read(self) -> bytes:
        return self._response.read()

    def events(self) -> Generator[tuple[str, str], None, None]:
        """Yield name ("message" by default) and data of each event of a text/event-stream."""
        parser = EventParser()
        while line := self._response.readline():
            for event in parser.feed(line):
                yield event.name, event.data


class ApiCalls:
    """Call with the settings' key, one call at a time.

    Args:
        settings: the credentials and the trusted certificates.
    """

    def __init__(self, settings: Settings) -> None:
        self._headers = {"User-Agent": user_agent(), **settings.credentials.headers()}
        self._options = settings.options
        self._kept: tuple[str, http.client.HTTPConnection] | None = None

    @contextmanager
    def call(
        self, method: str, url: str, body: JSON = None, *, headers: Mapping[str, str] | None = None
    ) -> Generator[Answer]:
        """Send a request. The answer has no time limit, since apps may work for long.

        Args:
            method: the HTTP method, such as "POST".
            url: the address, with its query.
            body: sent as JSON if the method is POST.
            headers: added to the usual ones.

        Raises:
            CommandError: the host cannot be reached, or the connection broke.
        """
        data = json.dumps(body).encode() if method == "POST" else None
        sent = self._headers | {"Accept": "*/*"} | dict(headers or {})
        if data is not None:
            sent["Content-Type"] = "application/json"
        parts = urlsplit(url)
        target = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        kept = self._kept is not None and self._kept[0] == f"{parts.scheme}://{parts.netloc}"
        connection = self._connection(parts.scheme, parts.netloc)
        try:
            try:
                yield Answer(self._ask(connection, method, target, data, sent))
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                if not kept or method != "GET":
                    raise
                # The other side closed the idle connection.
                connection.close()
                yield Answer(self._ask(connection, method, target, data, sent))
        except (OSError, http.client.HTTPException) as error:
            self.close()
            why = str(error) or type(error).__name__
            raise CommandError(
                f"Could not reach {parts.scheme}://{parts.netloc}: {why}. Is the controller running? `fal up` starts "
                "one here; FAL_RUN_HOST and FAL_QUEUE_RUN_HOST name other hosts for apps."
            ) from None

    def close(self) -> None:
        if self._kept is not None:
            self._kept[1].close()
            self._kept = None

    def context(self) -> ssl.SSLContext:
        """Return the TLS settings, with the trusted certificates."""
        return tls_context(self._options)

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of every request."""
        return self._headers

    def _connection(self, scheme: str, netloc: str) -> http.client.HTTPConnection:
        base = f"{scheme}://{netloc}"
        if self._kept is not None and self._kept[0] == base:
            return self._kept[1]
        self.close()
        proxy = _proxy(scheme, netloc)
        address = netloc if proxy is None else proxy
        if scheme == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                address, timeout=_CONNECT_SECONDS, context=self.context()
            )
            if proxy is not None:
                connection.set_tunnel(netloc)
        else:
            connection = http.client.HTTPConnection(address, timeout=_CONNECT_SECONDS)
        self._kept = (base, connection)
        return connection

    @staticmethod
    def _ask(
        connection: http.client.HTTPConnection, method: str, target: str, data: bytes | None, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        if connection.sock is None:
            connection.connect()
            _sock(connection).settimeout(None)
        connection.request(method, target, body=data, headers=headers)
        return connection.getresponse()


def _sock(connection: http.client.HTTPConnection) -> socket.socket:
    assert isinstance(connection.sock, socket.socket)
    return connection.sock


def detail_of(content: bytes) -> str:
    """Return the message in an error's body: its `detail`, or the body."""
    try:
        body = json.loads(content)
    except ValueError:
        return content.decode("utf-8", "replace").strip()[:2000]
    detail = body.get("detail", body) if isinstance(body, dict) else body
    if isinstance(detail, str):
        return detail
    if isinstance(detail, list) and all(isinstance(item, dict) and "msg" in item for item in detail):
        # FastAPI's list of wrong arguments.
        places = (".".join(str(part) for part in item.get("loc", ()) if part != "body") for item in detail)
        return "; ".join(
            f"{place}: {item['msg']}" if place else str(item["msg"])
            for place, item in zip(places, detail, strict=False)
        )
    return json.dumps(detail)


def _proxy(scheme: str, netloc: str) -> str | None:
    """Return the environment's proxy for this host; None for this machine, whose keys a proxy must not see."""
    host = urlsplit(f"//{netloc}").hostname or ""
    if scheme != "https" or kind_of(f"{scheme}://{netloc}").local or urllib.request.proxy_bypass(host):
        return None
    named = urllib.request.getproxies().get(scheme)
    return None if named is None else urlsplit(named if "://" in named else f"//{named}").netloc.rpartition("@")[2]
