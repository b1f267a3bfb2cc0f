"""Admits only the controller and the runner to the app's server.

Loopback ports are open to every program of the machine, and the app behind one checks no key. So the controller's
connections begin with a knock: KNOCK, a nonce and a proof by the runner's key. The gate answers with its own proof, by
which the controller knows that it has reached the app. The app gets all following bytes.
On a trusted network, the port is open to other machines, too: there the controller alone is admitted.
It is part of the worker: only the standard library, Python 3.8.
"""

# ruff: noqa: ANN401

from __future__ import annotations

import asyncio
import concurrent.futures
import hmac
from collections.abc import Callable
from typing import Any

KNOCK = b"\0fal-gate"
NONCE_BYTES = 16
PROOF_BYTES = 32
CALLER, APP = b"caller", b"app"
_LENGTH = len(KNOCK) + NONCE_BYTES + PROOF_BYTES
_MOST_SECONDS = 10.0
# Of the network at once: each takes a descriptor of the app. The controller knocks as soon as it is connected.
_MOST_CALLERS = 64
_HERE = "127.0.0.1"
_TEXT = b"this app takes calls from its controller alone: call it by its address there\n"
_FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain\r\nconnection: close\r\n"


def proof(key: bytes, side: bytes, nonce: bytes) -> bytes:
    """Return the proof that this side has the key. It is for the other side.

    Args:
        side: CALLER or APP, so that neither proof can be used as the other.
    """
    return hmac.digest(key, side + nonce, "sha256")


class Gate:
    """Guards the servers of an app.

    Args:
        key: the runner's.
        is_own: returns whether a socket belongs to one of the runner's processes, by its address and that of its other
            end. It may take milliseconds; calls do not overlap.
    """

    def __init__(self, key: str, is_own: Callable[[str, int, str, int], bool]) -> None:
        self._key = key.encode()
        self._is_own = is_own
        # A separate thread, because whoever knocks without a proof would otherwise use up the app's threads.
        self._looks = concurrent.futures.ThreadPoolExecutor(1, "fal-gate")
        self._callers: dict[_Caller, None] = {}  # which have not passed, oldest first

    def guard(self, factory: Callable[[], Any]) -> Callable[[], Any]:
        """Return a factory that guards the protocols of a server."""
        return lambda: _Entrant(self, factory)

    def guard_network(self, factory: Callable[[], Any]) -> Callable[[], Any]:
        """Return a factory like `guard`, for a port of the network. None of the runner's own calls come there."""
        return lambda: _Caller(self, factory)

    def came(self, caller: _Caller) -> None:
        """Let a caller from the network wait to pass. If too many wait, the oldest one has to go."""
        self._callers[caller] = None
        if len(self._callers) > _MOST_CALLERS:
            oldest = next(iter(self._callers))
            self.left(oldest)
            oldest.end()

    def left(self, caller: _Caller) -> None:
        """Note that a caller has passed, or is gone."""
        self._callers.pop(caller, None)

    def admits(self, knock: bytes) -> bytes | None:
        """Return the answer to a knock; None for a wrong one."""
        nonce = knock[len(KNOCK) : len(KNOCK) + NONCE_BYTES]
        if not hmac.compare_digest(knock[-PROOF_BYTES:], proof(self._key, CALLER, nonce)):
            return None
        return proof(self._key, APP, nonce)

    async def knows(self, here: Any, there: Any) -> bool:
        """Return whether a connection's other end belongs to the runner itself."""
        asked = (there[0], there[1], here[0], here[1])
        return await asyncio.get_running_loop().run_in_executor(self._looks, self._is_own, *asked)


class _Entrant(asyncio.Protocol):
    """A connection that has not passed the gate.

    Args:
        gate: decides who may pass.
        factory: creates the app's protocol after that.
    """

    def __init__(self, gate: Gate, factory: Callable[[], Any]) -> None:
        self._gate = gate
        self._factory = factory
        self._received = bytearray()
        self._asking: asyncio.Task[None] | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for the knock."""
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(_MOST_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Process the knock, and the bytes after it."""
        self._received += data
        if self._asking is not None:
            return
        started = bytes(self._received[: len(KNOCK)])
        if started != KNOCK[: len(started)]:
            # Calls by the app itself, and by commands beside it, do not knock.
            self._transport.pause_reading()
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        elif len(self._received) >= _LENGTH:
            answer = self._gate.admits(bytes(self._received[:_LENGTH]))
            if answer is None:
                self._refuse()
                return
            self._transport.write(answer)
            del self._received[:_LENGTH]
            self._pass()

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop the connection."""
        self._timer.cancel()

    async def _ask(self) -> None:
        here, there = (self._transport.get_extra_info(name) for name in ("sockname", "peername"))
        known = await self._gate.knows(here, there)
        if self._transport.is_closing():
            return
        if known:
            self._transport.resume_reading()
            self._pass()
        else:
            self._refuse()

    def _refuse(self) -> None:
        self._transport.write(_FORBIDDEN + b"content-length: %d\r\n\r\n" % len(_TEXT) + _TEXT)
        self._transport.close()

    def _shown(self) -> Any:
        """The transport, as the app sees it."""
        return self._transport

    def _pass(self) -> None:
        """Hand the connection over to the app."""
        self._timer.cancel()
        protocol = self._factory()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._shown())
        if self._received and not self._transport.is_closing():
            _feed(protocol, bytes(self._received))


class _Caller(_Entrant):
    """A connection from the network that has not passed the gate."""

    def connection_made(self, transport: Any) -> None:
        """Wait for the knock, among a limited number."""
        super().connection_made(transport)
        self._gate.came(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room for another."""
        super().connection_lost(exc)
        self._gate.left(self)

    def end(self) -> None:
        """Break the connection."""
        self._transport.abort()

    def _pass(self) -> None:
        self._gate.left(self)
        super()._pass()

    async def _ask(self) -> None:
        self._refuse()

    def _shown(self) -> Any:
        return _FromHere(self._transport)


class _FromHere:
    """A transport of the controller's. Its other end has this machine's address, by which servers trust proxies.

    The gate knows that it is the controller, which has the same address towards apps wherever they run.
    """

    def __init__(self, transport: Any) -> None:
        self._plain = transport
        self.write = transport.write
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        found = self._plain.get_extra_info(name, default)
        if found is not None and name == "peername":
            return _HERE, found[1]
        return _SocketFromHere(found) if found is not None and name == "socket" else found


class _SocketFromHere:
    """The socket of such a transport."""

    def __init__(self, plain: Any) -> None:
        self._plain = plain

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def getpeername(self) -> Any:
        return _HERE, self._plain.getpeername()[1]


def _feed(protocol: Any, data: bytes) -> None:
    if not hasattr(protocol, "get_buffer"):
        protocol.data_received(data)
        return
    while data:
        buffer = protocol.get_buffer(len(data))
        length = min(len(buffer), len(data))
        buffer[:length] = data[:length]
        protocol.buffer_updated(length)
        data = data[length:]
