"""Tells the gRPC server who is at the other end of a connection that the shared port passes on to it."""

from __future__ import annotations

import contextlib
import secrets
import socket

from fal_server.core.audit import PEER_PREFIX


def named_socket(peername: object) -> socket.socket:
    """Return a unix socket whose own name says the address of a caller.

    The name is in the abstract space, so nothing is left on disk. A part that cannot be guessed keeps others from
    taking it before; if it is taken, the caller is not known.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.setblocking(False)
    if isinstance(peername, tuple) and len(peername) >= 2:
        host, port = str(peername[0]), peername[1]
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        with contextlib.suppress(OSError):
            made.bind(f"\0{PEER_PREFIX}{address}/{secrets.token_hex(8)}")
    return made
