"""Parses a request to an app. It finds the app, the key, and the head for the runner."""

from __future__ import annotations

import math
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from fal_server.access.authorization import key_of
from fal_server.core.tracing import continued, is_traceparent, new_traceparent
from fal_server.http.gateway.passing import WITHHELD, withheld
from fal_server.http.server.errors import HttpError
from fal_server.http.server.exchange import Exchange
from fal_server.http.server.messages import origin_form, tokens

LIFECYCLE = "x-fal-object-lifecycle-preference"
_READ = frozenset(
    {
        b"authorization", b"content-length", b"connection", b"traceparent", b"tracestate", b"x-fal-request-timeout",
        b"x-fal-runner-hint",
    }
)  # fmt: skip
_TRACE = frozenset({b"traceparent", b"tracestate"})
_NOMINATES_NONE = (b"keep-alive", b"close", b"Keep-Alive", b"Upgrade", b"upgrade")
_CACHED_TARGET_BYTES = 256
_TOKEN = b"fal_jwt_token="


class AppRequest:
    """A parsed request to an app.

    Attributes:
        path: the path for the runner, with the query.
        fields: header lines for the runner, without those about framing, connection and key.
        key: (id, secret) of a platform key; None if there is none.
        length: of the body in bytes; None if it is chunked or there is none.
        hint: prefer runners with this hint.
        start_timeout: seconds that the request may wait for a runner; None means the app's setting.
        traceparent: of the caller, which the fields include; empty if there is no valid one.
        trace: the same if our spans of it are exported; None if they are not.
        token: the query's `fal_jwt_token`, which is not forwarded; None if there is none.
    """

    __slots__ = (
        "app",
        "fields",
        "hint",
        "key",
        "length",
        "owner",
        "path",
        "start_timeout",
        "token",
        "trace",
        "traceparent",
    )

    def __init__(self, exchange: Exchange) -> None:
        """Parse the head of an exchange.

        Raises:
            HttpError: it is not a request to an app, or a platform header is malformed.
        """
        target = exchange.target
        # Most calls use a few short paths; long ones are not cached, so that the cache stays small.
        split = _split_cached if len(target) <= _CACHED_TARGET_BYTES else split_target
        self.owner, self.app, self.path = split(target)
        self.path, self.token = without_token(self.path)
        self.key: tuple[str, str] | None = None
        self.length: int | None = None
        self.hint: str | None = None
        self.start_timeout: float | None = None
        fields: list[bytes] = []
        nominated: list[bytes] = []
        trace: list[tuple[bytes, bytes]] = []
        for name, value in exchange.headers:
            if name in _READ:
                if name == b"authorization":
                    key = key_of(value.decode("latin-1"))
                    if key is None:
                        fields.append(b"authorization: %b\r\n" % value)
                    else:
                        self.key = self.key or key
                elif name == b"content-length":
                    self.length = int(value)
                elif name == b"connection":
                    nominated = _nominated(value)
                elif name in _TRACE:
                    trace.append((name, value))
                elif name == b"x-fal-request-timeout":
                    self.start_timeout = _seconds(value)
                    fields.append(b"x-fal-request-timeout: %b\r\n" % value)
                else:
                    self.hint = value.decode("latin-1") or None
                    fields.append(b"x-fal-runner-hint: %b\r\n" % value)
            # a function call for each field would be measurable
            elif name not in WITHHELD and (b"_" not in name or not withheld(name)):
                fields.append(b"%b: %b\r\n" % (name, value))
        self.trace: str | None = None
        self.traceparent = b""
        fields += self._kept(trace) if trace else ()
        if not exchange.http11 and not any(name == b"host" for name, _ in exchange.headers):
            fields.append(b"host: localhost\r\n")  # the request to the runner uses HTTP/1.1, which requires one
        if nominated:
            fields = _without(fields, nominated)
        self.fields = b"".join(fields)

    def _kept(self, trace: list[tuple[bytes, bytes]]) -> list[bytes]:
        """Return the trace context's header lines; none without a valid one."""
        parent = next((value for name, value in trace if name == b"traceparent"), b"")
        if not is_traceparent(parent.decode("latin-1")):
            return []
        self.traceparent = parent
        states = [b"tracestate: %b\r\n" % value for name, value in trace if name == b"tracestate"]
        return [b"traceparent: %b\r\n" % parent, *states]

    def set_trace(self, request_id: str, *, exported: bool) -> None:
        """Have the app continue the caller's trace, or a new one.

        Args:
            exported: whether our spans are exported, and so are the parents of the app's.
        """
        if not exported:
            if not self.traceparent:
                self.fields += b"traceparent: %b\r\n" % new_traceparent(request_id).encode()
            return
        self.trace = self.traceparent.decode("latin-1")
        line = b"traceparent: %b\r\n" % continued(request_id, self.trace).encode()
        # The caller's line is the last of its kind: the fields of the trace context come last.
        before, own, after = self.fields.rpartition(b"traceparent: %b\r\n" % self.traceparent)
        self.fields = before + line + after if own and self.traceparent else self.fields + line

    def set_default(self, name: bytes, line: bytes) -> None:
        """Add a header line for the runner unless the caller sent it."""
        if not self.fields.startswith(name + b":") and b"\r\n" + name + b":" not in self.fields:
            self.fields += line


def split_target(target: bytes) -> tuple[str, str, bytes]:
    """Split a request's target into owner, app, and the app's path.

    Raises:
        HttpError: it does not name an owner and an app.
    """
    if not target.startswith(b"/"):
        target = origin_form(target)
    path, mark, query = target.partition(b"?")
    parts = path.split(b"/", 3)
    if len(parts) < 3 or not parts[1] or not parts[2]:
        raise HttpError(404, "bad_request", "page not found: call an app at /{owner}/{app}")
    rest = b"/" + parts[3] if len(parts) == 4 else b"/"
    return segment(parts[1]), segment(parts[2]), rest + mark + query


_split_cached = lru_cache(maxsize=1024)(split_target)


def without_token(path: bytes) -> tuple[bytes, str | None]:
    """Remove `fal_jwt_token` from a path with a query. Return the rest and the token."""
    if _TOKEN not in path:
        return path, None
    before, _, query = path.partition(b"?")
    fields = query.split(b"&")
    tokens = [field for field in fields if field.startswith(_TOKEN)]
    rest = b"&".join(field for field in fields if not field.startswith(_TOKEN))
    token = unquote_to_bytes(tokens[0][len(_TOKEN) :]).decode("latin-1") if tokens else None
    return (before + b"?" + rest if rest else before), token


def segment(raw: bytes) -> str:
    """Return a decoded path segment. Bytes that are not UTF-8 match no name."""
    return (unquote_to_bytes(raw) if b"%" in raw else raw).decode("utf-8", "replace")


def _nominated(value: bytes) -> list[bytes]:
    """Return a Connection field's tokens, except those that keep the connection."""
    return [] if value in _NOMINATES_NONE else tokens(value)


def _without(fields: list[bytes], nominated: list[bytes]) -> list[bytes]:
    """Return header lines without those that Connection names. Those must not be forwarded (RFC 9110, 7.6.1)."""
    ending = tuple(token + b":" for token in nominated if token not in (b"close", b"keep-alive", b"upgrade", b"host"))
    return [line for line in fields if not line.startswith(ending)]


def _seconds(value: bytes) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        shown = value[:80].decode("latin-1")
        raise HttpError(400, "bad_request", f"X-Fal-Request-Timeout is {shown!r}: give seconds, more than 0")
    return seconds
