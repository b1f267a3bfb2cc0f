"""Chooses the first of several controllers that can be reached. Later, gRPC goes on to the next by itself."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import replace
from enum import IntEnum
from pathlib import Path

from fal_grpc.errors import ConfigError
from fal_grpc.target import Target

_SECONDS = 2.0
# How long one has to answer before the next is asked, too.
_HEAD_START_SECONDS = 0.25
_TLS_ALERT = b"\x15"


class _Found(IntEnum):
    """What is known of an address; a higher one is called rather."""

    NOTHING = 0
    DISTRUSTED = 1
    ANSWERS = 2


def choose(targets: Sequence[Target], roots: Path | None = None) -> Target:
    """Return the first controller that answers, with the others. If none does, a distrusted one comes first.

    Args:
        targets: two or more on the same database, any of which passes calls on to the one that serves.
        roots: a PEM file with the trusted CAs; None means those of this machine.
    """
    chosen = targets[_best(targets, roots)]
    return replace(chosen, others=tuple(each for each in targets if each is not chosen))


def grpc_addresses(target: Target) -> str:
    """Return what gRPC connects to. Of several addresses it takes the first that answers, and later another.

    Raises:
        ConfigError: no address is known of any of them.
    """
    if not target.others:
        return target.authority
    found: list[str] = []
    for each in (target, *target.others):
        try:
            answers = socket.getaddrinfo(each.host, each.port, socket.AF_INET, socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            continue  # another one may have an address
        found += [f"{address[0]!s}:{each.port}" for *_, address in answers]
    if not found:
        raise ConfigError(f"none of {target} has an IPv4 address: name one controller, or their addresses")
    return "ipv4:" + ",".join(dict.fromkeys(found))


def _best(targets: Sequence[Target], roots: Path | None) -> int:
    """Return the place of the first that answers. Ask the next when one is slow, for it may never answer."""
    from queue import Empty, SimpleQueue  # only clients of several controllers need them
    from threading import Thread

    heard: SimpleQueue[tuple[int, _Found]] = SimpleQueue()

    def ask(place: int) -> None:
        heard.put((place, _look(targets[place], roots)))

    best, asked, answered = (_Found.NOTHING, 0), 0, 0
    while answered < len(targets):
        if asked < len(targets):
            Thread(target=ask, args=(asked,), daemon=True).start()  # an unanswered question delays no exit
            asked += 1
        try:
            place, found = heard.get(timeout=_HEAD_START_SECONDS if asked < len(targets) else None)
        except Empty:
            continue
        answered += 1
        if found is _Found.ANSWERS:
            return place
        best = max(best, (found, -place))
    return -best[1]


def _look(target: Target, roots: Path | None) -> _Found:
    """Ask whether a program answers there. The kernel accepts connections of a frozen one, too."""
    import ssl  # only clients of several controllers need it here

    try:
        with socket.create_connection((target.host, target.port), _SECONDS) as link:
            if target.plaintext:
                link.sendall(f"HEAD /health HTTP/1.1\r\nHost: {target.authority}\r\nConnection: close\r\n\r\n".encode())
                return _Found.NOTHING if link.recv(1) in (b"", _TLS_ALERT) else _Found.ANSWERS
            context = ssl.create_default_context(cafile=None if roots is None else str(roots))
            context.wrap_socket(link, server_hostname=target.host).close()
            return _Found.ANSWERS
    except ssl.SSLCertVerificationError:
        return _Found.DISTRUSTED  # a call says what is wrong, if no other answers
    except (OSError, ValueError):  # no host can have some names
        return _Found.NOTHING
