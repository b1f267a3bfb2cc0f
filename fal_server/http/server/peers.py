"""The address of a connection's other end. It is text, and goes to the gRPC server behind the shared port."""

from __future__ import annotations

import contextlib
import secrets
import socket

from fal_server.core.audit import PEER_PREFIX


def address_of(peername: object) -> str:
    """Return the address of a caller in text. Empty if there is none, as on a unix socket."""
    match peername:
        case (str(host), int(port), *_):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case _:
            return ""


def named_socket(peername: object) -> socket.socket:
    """Return a unix socket whose own name contains a caller's address.

    The name is in the abstract namespace, so nothing is left on disk. An unguessable part prevents others from taking
    it first; if it is taken, the caller is unknown.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.setblocking(False)
    if address := address_of(peername):
        with contextlib.suppress(OSError):
            made.bind(f"\0{PEER_PREFIX}{address}/{secrets.token_hex(8)}")
    return made
