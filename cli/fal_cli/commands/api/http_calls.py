"""The HTTP that `fal api` speaks with apps and their queue: a connection that is kept, answers as they come."""

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

from fal_cli.exit_codes import CommandError
from fal_grpc.channel import root_certificates, user_agent
from fal_grpc.target import is_loopback

if TYPE_CHECKING:
    from fal.settings import Settings
    from fal_grpc.adapter.values import JSON

_CONNECT_SECONDS = 30.0


class Answer:
    """An HTTP answer whose body is still to be read."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self.status = response.status
        self.content_type = (response.getheader("content-type") or "").partition(";")[0].strip().lower()
        self.request_id = response.getheader("x-fal-request-id")

    def read(self) -> bytes:
        """All of it."""
        return self._response.read()

    def events(self) -> Generator[tuple[str, str], None, None]:
        """The events of a text/event-stream: their name ("message" unless given) and data."""
        name, data = "message", list[str]()
        while raw := self._response.readline():
            line = raw.decode("utf-8", "replace").rstrip("\r\n")
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line:
                if data:
                    yield name, "\n".join(data)
                name, data = "message", []
            elif field == "event":
                name = value
            elif field == "data":
                data.append(value)


class ApiCalls:
    """Calls with the key that the settings found. One call at a time.

    Args:
        settings: whom it calls as, and which certificates it trusts.
    """

    def __init__(self, settings: Settings) -> None:
        self._headers = {"User-Agent": user_agent(), **settings.credentials.headers()}
        self._options = settings.options
        self._kept: tuple[str, http.client.HTTPConnection] | None = None

    @contextmanager
    def call(
        self, method: str, url: str, body: JSON = None, *, headers: Mapping[str, str] | None = None
    ) -> Generator[Answer]:
        """Ask; there is no time limit on the answer, since apps may work for long.

        Args:
            method: such as "POST".
            url: the address, with a query where there is one.
            body: sent as JSON where the method has a body.
            headers: beside the usual ones.

        Raises:
            CommandError: it cannot be reached, or broke off.
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
                # The other side closed a connection that it had kept long enough.
                connection.close()
                yield Answer(self._ask(connection, method, target, data, sent))
        except (OSError, http.client.HTTPException) as error:
            self.close()
            why = str(error) or type(error).__name__
            raise CommandError(
                f"Could not reach {parts.scheme}://{parts.netloc}: {why}. Is the controller running? `fal up` starts "
                "one here; FAL_RUN_HOST and FAL_QUEUE_RUN_HOST say where else apps are called."
            ) from None

    def close(self) -> None:
        """Let go of the connection."""
        if self._kept is not None:
            self._kept[1].close()
            self._kept = None

    def context(self) -> ssl.SSLContext:
        """What is trusted where TLS is spoken."""
        roots = root_certificates(self._options)
        return ssl.create_default_context(cafile=None if roots is None else str(roots))

    @property
    def headers(self) -> Mapping[str, str]:
        """What goes with every request."""
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
    """What an error's body says, in words: its `detail`, or itself."""
    try:
        body = json.loads(content)
    except ValueError:
        return content.decode("utf-8", "replace").strip()[:2000]
    detail = body.get("detail", body) if isinstance(body, dict) else body
    if isinstance(detail, str):
        return detail
    if isinstance(detail, list) and all(isinstance(item, dict) and "msg" in item for item in detail):
        # FastAPI's list of what is wrong with the arguments.
        places = (".".join(str(part) for part in item.get("loc", ()) if part != "body") for item in detail)
        return "; ".join(
            f"{place}: {item['msg']}" if place else str(item["msg"])
            for place, item in zip(places, detail, strict=False)
        )
    return json.dumps(detail)


def _proxy(scheme: str, netloc: str) -> str | None:
    """The proxy that the environment names for this host; none for this machine, whose keys it must not see."""
    host = urlsplit(f"//{netloc}").hostname or ""
    if scheme != "https" or is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    named = urllib.request.getproxies().get(scheme)
    return None if named is None else urlsplit(named if "://" in named else f"//{named}").netloc.rpartition("@")[2]
