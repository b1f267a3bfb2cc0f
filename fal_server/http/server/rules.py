"""Which requests the server takes: sizes, times, and the framing that cannot be understood in two ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from fal_server.http.server.exchange import Exchange
from fal_server.http.server.messages import tokens

Objection: TypeAlias = "tuple[int, str]"
_WATCHED = frozenset({b"host", b"transfer-encoding", b"content-length", b"expect", b"upgrade"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a client may take.

    Attributes:
        head_bytes: size of a request's line and header fields together, and of a body's trailers.
        body_buffer_bytes: so much of a body is kept for a handler that lags before reading stops.
        head_seconds: from a request's first byte to the end of its head.
        idle_seconds: between two requests; also how long the last bytes of an answer may take to be read.
        body_seconds: how long the controller's own pages wait for more of a body; apps have their request_timeout.
        linger_seconds: how long the rest of a body is thrown away after its request was answered.
    """

    head_bytes: int = 64 * 1024
    body_buffer_bytes: int = 64 * 1024
    head_seconds: float = 10
    idle_seconds: float = 75
    body_seconds: float = 60
    linger_seconds: float = 2


def validate(exchange: Exchange, version: str, *, upgrade: bool) -> Objection | None:
    """Why a request that can be parsed is not taken; notes on the exchange what it asks of the server.

    That a message has both lengths, or two of one, the parser itself refuses.

    Args:
        version: of HTTP, as `1.1`.
        upgrade: whether it asks for another protocol, or for a tunnel.

    Returns:
        Status and reason, or None.
    """
    if version != "1.1" and version != "1.0":
        return 505, f"HTTP/{version} is not spoken here: use HTTP/1.1"
    hosts = 0
    body = False
    for name, value in exchange.headers:
        if name not in _WATCHED:
            continue
        if name == b"host":
            hosts += 1
            exchange.host = value
        elif name == b"content-length":
            body = body or value.strip(b"0") != b""
        else:
            found = _unusual(exchange, name, value)
            if found is not None:
                return found
            body = body or name == b"transfer-encoding"
    if hosts > 1 or (hosts == 0 and exchange.http11):
        return 400, "a request in HTTP/1.1 has exactly one Host"
    if not upgrade:
        exchange.upgrade = False
        return None
    if exchange.method == b"CONNECT":
        return 405, "this is not a forward proxy"
    return (501, "a request that asks for an upgrade cannot have a body") if body else None


def _unusual(exchange: Exchange, name: bytes, value: bytes) -> Objection | None:
    """Judge one of the fields that few requests have."""
    if name == b"transfer-encoding":
        if not exchange.http11:
            return 400, "Transfer-Encoding needs HTTP/1.1"
        if value.lower() != b"chunked":
            return 501, "the only Transfer-Encoding that is understood is chunked"
    elif name == b"expect":
        if value.lower() != b"100-continue":
            return 417, "the only expectation that is understood is 100-continue"
        exchange.expects_continue = exchange.http11
    else:
        exchange.upgrade = b"websocket" in tokens(value) and exchange.method == b"GET"
    return None
