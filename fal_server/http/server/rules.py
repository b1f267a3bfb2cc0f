"""The requests that the server accepts: limits, and unambiguous framing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from fal_server.http.server.exchange import Exchange
from fal_server.http.server.messages import tokens

Rejection: TypeAlias = "tuple[int, str]"
_WATCHED = frozenset({b"host", b"transfer-encoding", b"content-length", b"expect", b"upgrade"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one client.

    Attributes:
        head_bytes: size of a request line with its header fields, and of a body's trailers.
        body_buffer_bytes: how much of a body is buffered for a slow handler before reading pauses.
        head_seconds: from a request's first byte to the end of its head.
        idle_seconds: between two requests; also for the client to read the last bytes of a response.
        body_seconds: how long to wait for more of a body.
        linger_seconds: how long to read and drop the rest of a body after its request was answered.
    """

    head_bytes: int = 64 * 1024
    body_buffer_bytes: int = 64 * 1024
    head_seconds: float = 10
    idle_seconds: float = 75
    body_seconds: float = 60
    linger_seconds: float = 2


def validate(exchange: Exchange, version: str, *, upgrade: bool) -> Rejection | None:
    """Check a parsed request, and set its requirements on the exchange.

    The parser itself rejects a message with two lengths.

    Args:
        version: of HTTP, such as `1.1`.
        upgrade: whether the request asks for another protocol or for a tunnel.

    Returns:
        Status and reason if the request is rejected, else None.
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
            rejection = _check_rare(exchange, name, value)
            if rejection is not None:
                return rejection
            body = body or name == b"transfer-encoding"
    if hosts > 1 or (hosts == 0 and exchange.http11):
        return 400, "a request in HTTP/1.1 has exactly one Host"
    if not upgrade:
        exchange.upgrade = False
        return None
    if exchange.method == b"CONNECT":
        return 405, "this is not a forward proxy"
    return (501, "a request that asks for an upgrade cannot have a body") if body else None


def _check_rare(exchange: Exchange, name: bytes, value: bytes) -> Rejection | None:
    """Check a field that is rare in requests."""
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
