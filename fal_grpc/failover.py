"""Chooses among several controllers: the first that can be reached; gRPC goes on to the next by itself."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import replace

from fal_grpc.errors import ConfigError
from fal_grpc.target import Target

_SECONDS = 2.0


def choose(targets: Sequence[Target]) -> Target:
    """Return the first controller that answers, with the others; the first of all if none does.

    Args:
        targets: controllers on the same database, any of which passes calls on to the one that serves.
    """
    if len(targets) == 1:
        return targets[0]
    chosen = next((each for each in targets if _answers(each)), targets[0])
    return replace(chosen, others=tuple(each for each in targets if each is not chosen))


def grpc_addresses(target: Target) -> str:
    """Return what gRPC connects to: of several addresses it takes the first that answers, and later another.

    Raises:
        ConfigError: no address is known of any of them.
    """
    if not target.others:
        return target.authority
    found: list[str] = []
    for each in (target, *target.others):
        try:
            answers = socket.getaddrinfo(each.host, each.port, socket.AF_INET, socket.SOCK_STREAM)
        except OSError:
            continue  # another one may have an address
        found += [f"{address[0]!s}:{each.port}" for *_, address in answers]
    if not found:
        raise ConfigError(f"none of {target} has an IPv4 address: name one controller, or their addresses")
    return "ipv4:" + ",".join(dict.fromkeys(found))


def _answers(target: Target) -> bool:
    """Return whether a program answers there: the kernel accepts connections of a frozen one, too."""
    try:
        with socket.create_connection((target.host, target.port), _SECONDS) as link:
            if target.plaintext:
                link.sendall(f"HEAD /health HTTP/1.1\r\nHost: {target.authority}\r\nConnection: close\r\n\r\n".encode())
                return bool(link.recv(1))
            import ssl  # only clients of several controllers need it here

            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent; calls check it
            context.wrap_socket(link, server_hostname=target.host).close()
            return True
    except OSError:
        return False
