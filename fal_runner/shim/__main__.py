"""The process that supervises one runner and outlives the controller: `python -m fal_runner.shim --wait`.

It is started in advance, and reads from standard input which runner it gets (see prewarm). If that is a socket, it
writes "ready" to it once it listens. Its arguments and files contain no secret.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import grpc.aio

from fal_grpc.v1 import shim_pb2_grpc
from fal_runner.exec.listener import ExecListener
from fal_runner.exec.service import ExecService
from fal_runner.process.proc import boot_id, own_process, tag_of
from fal_runner.process.subreaper import Subreaper
from fal_runner.shim.address import EXEC_SOCKET_NAME, LOG_NAME, SOCKET_NAME, ShimIdentity, SocketPath
from fal_runner.shim.prewarm import MOST_ORDER_BYTES, READY, PrewarmedWorker, ShimOrder, wait_for_order
from fal_runner.shim.servicer import ShimServicer, StartRefused, TokenInterceptor
from fal_runner.worker.process_tag import take_tag

_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # No compression: gRPC would inflate a whole message from any sender.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    ("grpc.so_reuseport", 0),
]


class Timeouts(TypedDict):
    """The time limits of a shim; see Shim."""

    start_seconds: float
    keep_seconds: float


class Shim:
    """One shim, from the start of its process.

    Args:
        start_seconds: how long it waits for Start.
        keep_seconds: how long it waits for a controller after the worker's end and the last call. The log stays on
            disk; only the worker's exit status is then lost.
    """

    def __init__(self, *, start_seconds: float, keep_seconds: float) -> None:
        self._start_seconds = start_seconds
        self._keep_seconds = keep_seconds
        self._reaper = Subreaper()
        self._reaper.install()
        self._tokens = TokenInterceptor("")
        self._server = grpc.aio.server(interceptors=[self._tokens], options=_OPTIONS)

    async def wait(self, connection: socket.socket) -> None:
        """Wait for a runner and serve it. If none ever comes, end the prewarmed worker."""
        lines, answers = await asyncio.open_connection(sock=connection, limit=MOST_ORDER_BYTES)
        order, prewarmed = await wait_for_order(lines, answers, self._reaper)
        if order is None:
            await self._reaper.sweep()
            return

        def listens() -> None:
            answers.write(READY)
            answers.close()

        take_order(order)
        await self.serve(order, listens, prewarmed)

    async def serve(
        self, order: ShimOrder, listens: Callable[[], None], prewarmed: PrewarmedWorker | None = None
    ) -> None:
        """Serve until Shutdown, or until a time limit passes.

        Args:
            order: names the runner; the socket and the spool are created in its directory.
            listens: called once callers can connect.
            prewarmed: a worker that waits for its job.
        """
        directory, reaper = order.directory, self._reaper
        self._tokens.token = order.token
        execs = ExecService(directory, reaper)
        servicer = ShimServicer(directory, reaper, self._tokens, execs, prewarmed)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, servicer.terminate)
        if order.spec is not None:
            with contextlib.suppress(StartRefused):  # the caller of Start gets the reason
                await servicer.start(order.spec)
        shim_pb2_grpc.add_ShimServicer_to_server(servicer, self._server)
        listening = SocketPath(directory / SOCKET_NAME)
        self._server.add_insecure_port(listening.target)
        await self._server.start()
        commands = ExecListener(SocketPath(directory / EXEC_SOCKET_NAME), self._tokens, execs)
        commands.open()
        ShimIdentity(
            pid=os.getpid(),
            started_ticks=own_process().started_ticks,
            boot_id=boot_id(),
            tag=tag_of(order.token),
            address=str(directory / SOCKET_NAME),
        ).write(directory)
        listens()
        try:
            async with asyncio.timeout(self._start_seconds):
                await servicer.started.wait()
            await servicer.until_unneeded(self._keep_seconds)
        except TimeoutError:
            print(f"no Start within {self._start_seconds:g} s: the shim ends", file=sys.stderr)  # noqa: T201
        await self._server.stop(1.0)
        await commands.close()
        await reaper.sweep()
        listening.close()


def take_standard_input() -> int:
    """Return the former standard input, and make standard input empty."""
    fd = os.dup(0)
    with Path(os.devnull).open("rb") as null:
        os.dup2(null.fileno(), 0)
    return fd


def take_order(order: ShimOrder) -> None:
    """Become the shim of this runner.

    Raises:
        ValueError: the process was not started in advance.
        OSError: the directory cannot be used.
    """
    os.chdir(order.directory)
    log = os.open(LOG_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    take_tag(tag_of(order.token))


async def wait(fd: int, timeouts: Timeouts) -> None:
    """Supervise a runner that a socket will name, if it ever does."""
    await Shim(**timeouts).wait(socket.socket(fileno=fd))


async def serve(fd: int, directory: Path, token: str, timeouts: Timeouts) -> None:
    """Supervise a known runner. Write "ready" if standard input is a socket."""

    def listens() -> None:
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            os.write(fd, READY)
        os.close(fd)

    await Shim(**timeouts).serve(ShimOrder(directory=directory, token=token), listens)


def main() -> int:
    """Read the arguments and the token, then serve."""
    parser = argparse.ArgumentParser(prog="fal_runner.shim", description="Look after one runner.")
    whose = parser.add_mutually_exclusive_group(required=True)
    whose.add_argument("--dir", type=Path, help="the runner's directory; its token comes by standard input")
    whose.add_argument(
        "--wait", action="store_true", help="both come by standard input, as JSON, when there is a runner"
    )
    parser.add_argument(
        "--start-seconds", type=float, default=60.0, help="end after so many seconds without a Start (default 60)"
    )
    parser.add_argument(
        "--keep-seconds", type=float, default=600.0, help="once the worker is gone, end after so long without a call"
    )
    arguments = parser.parse_args()
    os.umask(0o077)
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # a runner must not end with the terminal that it was started from
    timeouts: Timeouts = {"start_seconds": arguments.start_seconds, "keep_seconds": arguments.keep_seconds}
    fd = take_standard_input()
    if arguments.wait:
        asyncio.run(wait(fd, timeouts))
        return 0
    with os.fdopen(fd, "rb", closefd=False) as lines:
        token = lines.readline().decode().strip()
    if not token:
        print("no token on standard input", file=sys.stderr)  # noqa: T201
        return 2
    asyncio.run(serve(fd, arguments.dir.absolute(), token, timeouts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
