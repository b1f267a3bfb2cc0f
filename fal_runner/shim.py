"""The small process that looks after one runner and outlives the controller: `python -m fal_runner.shim --wait`.

It is started ahead, and told by standard input, on a line, whose it is; where that is a socket, "ready" is written back
when it listens. Nothing secret is in its arguments or on disk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import stat
import sys
from pathlib import Path

import grpc.aio

from fal_grpc.v1 import shim_pb2_grpc
from fal_runner.address import EXEC_SOCKET_NAME, LOG_NAME, SOCKET_NAME, ShimIdentity, SocketPath
from fal_runner.exec_door import ExecDoor
from fal_runner.execs import Execs
from fal_runner.processes import boot_id, look, mark_of, take_mark
from fal_runner.reaper import Reaper
from fal_runner.servicer import ShimServicer, TokenGate

_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
]


async def serve(
    directory: Path, token: str, handshake: socket.socket | None, *, start_seconds: float, keep_seconds: float
) -> None:
    """Listen until Shutdown, until nobody has asked for a worker in time, or until nobody wants to know its end.

    Args:
        directory: the runner's directory; the socket and the spool are made in it.
        token: what callers must show.
        handshake: told when the shim listens.
        start_seconds: how long Start is waited for.
        keep_seconds: how long after the worker's end and the last call a controller is waited for; the log stays on
            disk, only how it ended is forgotten then.
    """
    reaper = Reaper()
    reaper.install()
    gate = TokenGate(token)
    execs = Execs(directory, reaper)
    servicer = ShimServicer(directory, reaper, gate, execs)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, servicer.end_politely)
    server = grpc.aio.server(interceptors=[gate], options=_OPTIONS)
    shim_pb2_grpc.add_ShimServicer_to_server(servicer, server)
    listening = SocketPath(directory / SOCKET_NAME)
    server.add_insecure_port(listening.target)
    await server.start()
    door = ExecDoor(SocketPath(directory / EXEC_SOCKET_NAME), gate, execs)
    door.open()
    own = look(os.getpid())
    ShimIdentity(
        pid=os.getpid(),
        started_ticks=own.started_ticks if own else 0,
        boot_id=boot_id(),
        mark=mark_of(token),
        address=str(directory / SOCKET_NAME),
    ).write(directory)
    if handshake is not None:
        handshake.sendall(b"ready\n")
        handshake.close()
    try:
        await asyncio.wait_for(servicer.started.wait(), start_seconds)
        await servicer.serve_out(keep_seconds)
    except TimeoutError:
        print(f"no Start within {start_seconds:g} s: the shim ends", file=sys.stderr)  # noqa: T201
    await server.stop(1.0)
    await door.close()
    await reaper.sweep()
    listening.close()


def take_standard_input() -> tuple[str, socket.socket | None]:
    """The line on standard input, and where to say that the shim listens; standard input is empty afterwards."""
    fd = os.dup(0)
    with Path(os.devnull).open("rb") as null:
        os.dup2(null.fileno(), 0)
    if stat.S_ISSOCK(os.fstat(fd).st_mode):
        connection = socket.socket(fileno=fd)
        with connection.makefile("rb") as lines:
            return lines.readline().decode().strip(), connection
    with os.fdopen(fd, "rb") as pipe:
        return pipe.readline().decode().strip(), None


def take_order(line: str) -> tuple[Path, str]:
    """Become the shim of the runner that the line names: its directory and token.

    Raises:
        ValueError: the process was not started to wait for one.
        OSError: the directory cannot be used.
    """
    order = json.loads(line)
    directory, token = Path(order["directory"]), str(order["token"])
    os.chdir(directory)
    log = os.open(LOG_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    take_mark(mark_of(token))
    return directory, token


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
    line, handshake = take_standard_input()
    if arguments.wait and not line:
        return 0  # there never was a runner for it
    directory, token = take_order(line) if arguments.wait else (arguments.dir, line)
    if not token:
        print("no token on standard input", file=sys.stderr)  # noqa: T201
        return 2
    os.umask(0o077)
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # what happens at a terminal is nothing to a runner
    waits = {"start_seconds": arguments.start_seconds, "keep_seconds": arguments.keep_seconds}
    asyncio.run(serve(directory.absolute(), token, handshake, **waits))
    return 0


if __name__ == "__main__":
    sys.exit(main())
