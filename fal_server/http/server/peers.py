"""Who is at the other end of a connection: in text, and told to the gRPC server behind the shared port."""

from __future__ import annotations

import contextlib
import secrets
import socket

from fal_server.core.audit import PEER_PREFIX


def address_of(peername: object) -> str:
    """Return the address of a caller in text; empty if there is none, as on a unix socket."""
    match peername:
        case (str(host), int(port), *_):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case _:
            return ""


def named_socket(peername: object) -> socket.socket:
    """Return a unix socket whose own name says the address of a caller.

    The name is in the abstract space, so nothing is left on disk. A part that cannot be guessed keeps others from
    taking it before; if it is taken, the caller is not known.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.setblocking(False)
    if address := address_of(peername):
        with contextlib.suppress(OSError):
            made.bind(f"\0{PEER_PREFIX}{address}/{secrets.token_hex(8)}")
    return made
