"""Connections to runners, and the pool of idle ones."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, cast

import httptools

from fal_runner.worker.gate import APP, CALLER, KNOCK, NONCE_BYTES
from fal_runner.worker.gate import proof as prove
from fal_server.core.addresses import RunnerAddress
from fal_server.core.faults import NodeTrouble
from fal_server.http.server.messages import Headers

# uvicorn, which most apps use, closes after 5 idle seconds: keep a connection for less, so that it is not closed just
# as its next request is sent.
_IDLE_SECONDS = 4.0
_SHORTAGE_SECONDS = 0.05
_ENDING_SECONDS = 0.2
# A packet that got lost is sent again after a second. Whoever waits may have five.
_FIRST_WAY_SECONDS = 1.5
_ESTABLISHED = 1  # TCP_ESTABLISHED in the kernel's tcp_states.h
_MAX_HEAD_BYTES = 256 * 1024
_NO_BODY_END = (b"content-length", b"transfer-encoding")


def knock_and_proof(gate_key: str) -> tuple[bytes, bytes]:
    """Return the bytes that open a gate, and its expected answer. See fal_runner.worker.gate."""
    nonce = os.urandom(NONCE_BYTES)
    secret = gate_key.encode()
    return KNOCK + nonce + prove(secret, CALLER, nonce), prove(secret, APP, nonce)


@dataclass(frozen=True, slots=True)
class AppWay:
    """How an app of another machine is reached.

    Attributes:
        host, port: the door of its machine, or the app's own port on a trusted network.
        context: how the door is spoken with; None without a door.
        server_name: what the door is asked for; empty without a door.
        opened: is told of each connection, and shuts it down when the machine is given up: to a machine without power
            it would not break.
        seconds: how long a connection is used again. A way that is taken for want of a better one has a limit.
        fallback: is taken if this way does not lead there; None if there is no other.
    """

    host: str
    port: int
    context: ssl.SSLContext | None
    server_name: str
    opened: Callable[[socket.socket], None]
    seconds: float = math.inf
    fallback: Fallback | None = None


@dataclass(frozen=True, slots=True)
class Fallback:
    """The other way to an app.

    Attributes:
        way: the way.
        taken: is told why each time that it is taken.
    """

    way: AppWay
    taken: Callable[[OSError], None]


Ways: TypeAlias = "Callable[[RunnerAddress], AppWay | None]"


def straight(_address: RunnerAddress) -> AppWay | None:
    """Return None: every app is on this machine."""
    return None


class ResponseListener(Protocol):
    """Has sent a request, and receives the runner's response."""

    def on_response(self) -> None:
        """Handle a head, a body's part, or the end of a response."""
        ...

    def on_broken(self, detail: str) -> None:
        """Handle that the connection ended before the response did."""
        ...

    def on_runner_slow(self) -> None:
        """Stop sending, because the runner reads more slowly."""
        ...

    def on_runner_ready(self) -> None:
        """Send again, because the runner has caught up."""
        ...


class Upstream(asyncio.Protocol):
    """A connection to a runner, for one request at a time.

    Args:
        pool: keeps it while it is idle.
        key: identifies the runner.
        sock: its socket.
        proof: the expected first bytes of the gate before the app; empty without a gate.

    Attributes:
        listener: receives the response; None while the connection is idle.
        status, phrase, headers: the response's head, once `head` is set.
        complete: whether the whole response has arrived.
        switched: whether the runner answered 101; the body then holds the raw bytes after the head.
        reused: whether the connection served another request before.
        answered: whether any byte of the current response has arrived.
        good_until: it serves no further request after this time of the event loop.
    """

    __slots__ = (
        "_body",
        "_bodyless",
        "_eof_ends",
        "_head_bytes",
        "_parser",
        "_pool",
        "_proof",
        "_reusable",
        "_socket",
        "answered",
        "complete",
        "good_until",
        "head",
        "headers",
        "idle_since",
        "key",
        "listener",
        "lost",
        "phrase",
        "reused",
        "status",
        "switched",
        "transport",
    )

    def __init__(self, pool: Pool, key: str, sock: socket.socket, proof: bytes = b"") -> None:
        self._pool = pool
        self._proof = proof
        self._socket = sock
        self.key = key
        self._parser = httptools.HttpResponseParser(self)
        self.listener: ResponseListener | None = None
        self.reused = False
        self.lost = False
        self.idle_since = 0.0
        self.good_until = math.inf
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.phrase = b""
        self.headers: Headers = []
        self.head = self.complete = self.switched = self.answered = False
        self._body: list[bytes] = []
        self._bodyless = self._eof_ends = False
        self._reusable = True
        self._head_bytes = 0

    def start_request(self, listener: ResponseListener, *, bodyless: bool) -> None:
        """Reserve the connection for a request. The caller then writes it to `transport`.

        Args:
            bodyless: the response has no body, whatever its head says (HEAD).
        """
        self._reset()
        self.listener = listener
        self._bodyless = bodyless

    def alive(self) -> bool:
        """Return whether it is open, asking the kernel. The event loop may not have noticed a close yet."""
        if self.lost or self.transport.is_closing():
            return False
        return self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED

    @property
    def waiting_body(self) -> Sequence[bytes]:
        """The parts of the body that `take_body` returns next."""
        return self._body

    def take_body(self) -> bytes:
        """Return the part of the body that has arrived."""
        body = self._body
        if not body:
            return b""
        self._body = []
        return body[0] if len(body) == 1 else b"".join(body)

    def end_request(self, *, reusable: bool) -> None:
        """Keep the connection for the next request if possible, otherwise close it."""
        self.listener = None
        if reusable and self.complete and self._reusable and not self.lost and not self.transport.is_closing():
            self.reused = True
            self._pool.put(self)
        else:
            self.transport.abort()

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        listener = self.listener
        if self._proof:
            data = self._checked(data)
            if not data:
                return
        if listener is None:
            self.transport.abort()  # a response without a request
            return
        self.answered = True
        if self.switched:
            self._body.append(data)
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if rest := data[upgrade.args[0] :]:
                self._body.append(rest)
        except httptools.HttpParserError as error:
            if not self.complete:
                listener.on_broken(f"the runner's answer is not HTTP/1.1: {error}")
                return
            self._reusable = False
        if not self.head:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES:
                listener.on_broken(f"the head of the runner's answer is larger than {_MAX_HEAD_BYTES} bytes")
            return
        listener.on_response()

    def _checked(self, data: bytes) -> bytes:
        """Check the gate's proof at the start of the data. Return the rest. A wrong proof ends the connection."""
        proof, rest = data[: len(self._proof)], data[len(self._proof) :]
        if not self._proof.startswith(proof):
            if self.listener is not None:
                self.listener.on_broken("what answers on the runner's port is not its app")
            self.transport.abort()
            return b""
        self._proof = self._proof[len(proof) :]
        return rest

    def eof_received(self) -> bool | None:
        """End a response without a length."""
        if self._eof_ends and self.head and not self.complete:
            self.complete = True
            self._reusable = False
            if self.listener is not None:
                self.listener.on_response()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        listener = self.listener
        if listener is not None:
            if not self.complete:
                listener.on_broken(
                    "the runner closed the connection" if exc is None else f"the connection broke: {exc}"
                )
        else:
            self._pool.forget(self)

    def pause_writing(self) -> None:
        if self.listener is not None:
            self.listener.on_runner_slow()

    def resume_writing(self) -> None:
        if self.listener is not None:
            self.listener.on_runner_ready()

    # Called by the parser.

    def on_message_begin(self) -> None:
        if self.complete:
            self._reusable = False

    def on_status(self, status: bytes) -> None:
        if not self.head:
            self.phrase += status

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        status = self._parser.get_status_code()
        if status < 200:
            if status == 101:
                self.switched = self.head = self.complete = True
                self.status = status
            return
        self.head = True
        self.status = status
        # A server whose handler raised an exception answers 500 and closes without announcing it (uvicorn does).
        self._reusable = self._parser.should_keep_alive() and status < 500
        if self._bodyless:
            self.complete = True
            self._reusable = False  # the parser expects a body that will not come
        elif not self._parser.should_keep_alive() and status not in (204, 304):
            self._eof_ends = not any(name in _NO_BODY_END for name, _ in self.headers)

    def on_body(self, body: bytes) -> None:
        if not self._bodyless and not self.complete:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self.head:
            self.complete = True
        else:  # 100 Continue and the like: the response follows
            self.headers = []
            self.phrase = b""


def _node_silent(why: object) -> NodeTrouble:
    """Return the fault of a runner whose node does not answer."""
    return NodeTrouble(f"the node of the runner does not answer ({why}): try again later")


async def stays_open(upstream: Upstream) -> bool:
    """Return whether a new connection is still open after a short time. Close it.

    A process that ends may close a request's connection before the port on which it listens. Connections made in
    between are reset.
    """
    await asyncio.sleep(_ENDING_SECONDS)
    lost = upstream.lost
    upstream.transport.abort()
    return not lost


class Pool:
    """Idle connections by runner; the most recently used one is taken first.

    Args:
        ways: returns how an app of another machine is reached, and None for one of this machine.
    """

    __slots__ = ("_idle", "_loop", "_timer", "_ways")

    def __init__(self, ways: Ways) -> None:
        self._ways = ways
        self._loop = asyncio.get_running_loop()
        self._idle: dict[str, list[Upstream]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def get(self, key: str) -> Upstream | None:
        """Return an idle connection that is still open, or None."""
        idle = self._idle.get(key)
        while idle:
            upstream = idle.pop()
            if upstream.alive():
                return upstream
            upstream.transport.abort()
        return None

    def put(self, upstream: Upstream) -> None:
        """Keep a connection for the next request."""
        upstream.idle_since = self._loop.time()
        if upstream.idle_since > upstream.good_until:
            upstream.transport.abort()
            return
        self._idle.setdefault(upstream.key, []).append(upstream)
        if self._timer is None:
            self._timer = self._loop.call_later(_IDLE_SECONDS / 2, self._sweep)

    def forget(self, upstream: Upstream) -> None:
        """Remove an idle connection that was closed."""
        idle = self._idle.get(upstream.key)
        if idle is not None and upstream in idle:
            idle.remove(upstream)

    async def connect(self, key: str, address: RunnerAddress, *, seconds: float) -> Upstream:
        """Open a connection, waiting while this machine lacks the resources for it.

        Args:
            seconds: how long to try.

        Raises:
            TimeoutError: the runner did not accept in time.
            OSError: it refuses, or the address cannot be reached.
            NodeTrouble: this machine lacked descriptors, ports or memory, or the runner's node does not answer, which
                says nothing about the runner.
        """
        shortage: OSError | None = None
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        return await self._reach(key, address)
                    except OSError as error:
                        if not NodeTrouble.explains(error):
                            if self._ways(address) is not None:
                                raise _node_silent(error) from error
                            raise
                        shortage = error
                    await asyncio.sleep(_SHORTAGE_SECONDS)
        except TimeoutError as error:
            if shortage is None:
                if self._ways(address) is not None:
                    raise _node_silent("no answer in time") from error
                raise
            raise NodeTrouble(
                f"the controller's machine cannot open a connection to a runner ({shortage.strerror}): try again later"
            ) from shortage

    async def _reach(self, key: str, address: RunnerAddress) -> Upstream:
        """Open a connection. If the first way does not lead there, take the other."""
        way = self._ways(address)
        if way is not None and way.fallback is not None:
            try:
                async with asyncio.timeout(_FIRST_WAY_SECONDS):
                    return await self._open(key, address, way)
            except OSError as error:
                if NodeTrouble.explains(error):
                    raise
                way.fallback.taken(error)
                way = way.fallback.way
                for idle in self._idle.pop(key, ()):
                    idle.transport.abort()  # they may lead nowhere, too
        return await self._open(key, address, way)

    async def _open(self, key: str, address: RunnerAddress, way: AppWay | None) -> Upstream:
        host, port = (address.host, address.port) if way is None else (way.host, way.port)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Created here, because `Upstream.alive` needs the socket and uvloop hides its own.
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.sock_connect(sock, (host, port))
            knock, proof = knock_and_proof(address.gate_key) if address.gate_key else (b"", b"")
            _, upstream = await self._loop.create_connection(
                lambda: Upstream(self, key, sock, proof),
                sock=sock,
                ssl=None if way is None else way.context,
                server_hostname=None if way is None or way.context is None else way.server_name,
            )
            upstream.transport.write(knock)
            if way is not None:
                way.opened(sock)
                upstream.good_until = self._loop.time() + way.seconds
        except BaseException:
            sock.close()
            raise
        return upstream

    def close(self) -> None:
        """Close all idle connections."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        idle, self._idle = self._idle, {}
        for upstreams in idle.values():
            for upstream in upstreams:
                upstream.transport.abort()

    def _sweep(self) -> None:
        """Close connections that were idle for too long, oldest first."""
        self._timer = None
        oldest = self._loop.time() - _IDLE_SECONDS
        for key, idle in tuple(self._idle.items()):
            while idle and idle[0].idle_since < oldest:
                idle.pop(0).transport.abort()
            if not idle:
                del self._idle[key]
        if self._idle:
            self._timer = self._loop.call_later(_IDLE_SECONDS / 2, self._sweep)
