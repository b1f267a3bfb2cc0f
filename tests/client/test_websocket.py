"""The blocking WebSocket client, against a server with TLS 1.3."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request, Response

from fal.websocket import WebSocket
from tests.support.certificates import Authority
from tests.support.controller import ROOT
from tests.support.waiting import until


class Interrupt(BaseException):
    """What a handler of a signal raises."""


class Users:
    """The threads that use TLS connections, and the versions of TLS."""

    def __init__(self, authority: Path) -> None:
        self.threads: set[int] = set()
        self.versions: set[str | None] = set()
        self.context = ssl.create_default_context(cafile=str(authority))
        users = self

        class Object(ssl.SSLObject):
            def read(self, *arguments: object) -> bytes:
                users._note(self.version())
                return super().read(*arguments)  # type: ignore[arg-type]

            def write(self, data: bytes) -> int:
                users._note(self.version())
                return super().write(data)

        class Socket(ssl.SSLSocket):
            def recv(self, *arguments: int) -> bytes:
                users._note(self.version())
                return super().recv(*arguments)

            def sendall(self, *arguments: object) -> None:
                users._note(self.version())
                return super().sendall(*arguments)  # type: ignore[arg-type]

        self.context.sslobject_class = Object
        self.context.sslsocket_class = Socket

    def _note(self, version: str | None) -> None:
        self.threads.add(threading.get_ident())
        self.versions.add(version)


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


def admit(socket: ServerConnection, request: Request) -> Response | None:
    if request.path == "/moved":
        answer = socket.respond(302, "elsewhere\n")
        answer.headers["Location"] = "/"
        return answer
    return socket.respond(403, "no\n") if request.path == "/closed" else None


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture
def url(authority: Authority) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server", address="127.0.0.1"))
    ready: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        over = asyncio.Event()
        async with serve(echo, "127.0.0.1", 0, ssl=context, process_request=admit) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            ready.set_result((port, asyncio.get_running_loop(), over))
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    port, loop, over = ready.result()
    try:
        yield f"wss://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()


@pytest.fixture
def users(authority: Authority) -> Users:
    return Users(authority.file)


def test_one_thread_has_the_tls_connection_while_others_send_and_receive(url: str, users: Users) -> None:
    with WebSocket(connect(url, ssl=users.context)) as socket:
        sender = threading.Thread(target=lambda: [socket.send(bytes([number])) for number in range(100)])
        sender.start()
        assert [socket.recv() for _ in range(100)] == [bytes([number]) for number in range(100)]
        sender.join()
        socket.send("text")
        assert socket.recv() == "text"
    assert users.versions == {"TLSv1.3"}
    assert len(users.threads) == 1
    assert threading.get_ident() not in users.threads


def test_a_receive_that_takes_too_long_leaves_the_message_to_the_next(url: str, users: Users) -> None:
    with WebSocket(connect(url, ssl=users.context)) as socket:
        with pytest.raises(TimeoutError):
            socket.recv(timeout=0.01)
        socket.send("late")
        assert socket.recv(timeout=60) == "late"


def test_a_signal_ends_the_wait(url: str, users: Users) -> None:
    def interrupt(*_: object) -> None:
        raise Interrupt

    def waits() -> bool:
        # Anywhere else the exception might come in a callback that cannot raise.
        return sys._current_frames()[receiver].f_code is WebSocket._wait.__code__

    def send_signal() -> None:
        until(waits, "a thread that waits for a message")
        os.kill(os.getpid(), signal.SIGUSR1)

    receiver = threading.get_ident()
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with WebSocket(connect(url, ssl=users.context)) as socket:
            sender = threading.Thread(target=send_signal)
            sender.start()
            with pytest.raises(Interrupt):
                socket.recv()
            sender.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_signal_at_any_step_leaves_it_usable(url: str, authority: Authority) -> None:
    program = [sys.executable, "-W", "ignore", "-m", "tests.support.interrupted_websocket", url, str(authority.file)]
    ended = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 20


def exchange(socket: WebSocket, message: str) -> str | bytes:
    socket.send(message)
    return socket.recv()


def test_other_threads_learn_that_it_is_closed(url: str, users: Users) -> None:
    found: list[BaseException] = []

    def receive() -> None:
        try:
            exchange(socket, "here")
            received.set()
            socket.recv()
        except ConnectionClosed as error:
            found.append(error)

    received = threading.Event()
    with WebSocket(connect(url, ssl=users.context)) as socket:
        receiver = threading.Thread(target=receive)
        receiver.start()
        received.wait()
    receiver.join()
    assert len(found) == 1
    with pytest.raises(ConnectionClosed):
        socket.send("more")


def test_a_refusal_is_raised(url: str, users: Users) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        WebSocket(connect(f"{url}/closed", ssl=users.context))


def test_a_redirect_is_raised(url: str, users: Users) -> None:
    """The key in the headers is for this address alone."""
    with pytest.raises(InvalidStatus, match="302"):
        WebSocket(connect(f"{url}/moved", ssl=users.context))


FORKED = """
import os, ssl, sys, warnings
from websockets.asyncio.client import connect
from fal.websocket import WebSocket

warnings.simplefilter("ignore", DeprecationWarning)  # a program with threads should not fork
url, authority = sys.argv[1:]
with WebSocket(connect(url, ssl=ssl.create_default_context(cafile=authority))) as socket:
    child = os.fork()
    if child == 0:
        try:
            socket.recv(timeout=60)
        except ConnectionError:
            os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    socket.send("here")
    print(socket.recv())
"""


def test_another_process_cannot_use_it(url: str, authority: Authority) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED, url, str(authority.file)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["7", "here"]


def test_a_connection_that_cannot_be_opened_leaves_no_thread(url: str, users: Users) -> None:
    before = set(threading.enumerate())
    with pytest.raises(InvalidStatus) as failed:
        WebSocket(connect(f"{url}/closed", ssl=users.context))
    for thread in set(threading.enumerate()) - before:
        thread.join()
    assert failed.value.response.status_code == 403


def test_its_thread_ends_with_it(url: str, users: Users) -> None:
    before = set(threading.enumerate())
    with WebSocket(connect(url, ssl=users.context)) as socket:
        [thread] = set(threading.enumerate()) - before
        assert exchange(socket, "here") == "here"
    assert thread.is_alive()
    del socket
    gc.collect()
    thread.join()
