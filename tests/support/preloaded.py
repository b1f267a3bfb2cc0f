"""Run a program's copies in processes that have its packages loaded. Those whose own work is under test are not loaded.

The published command takes two seconds of CPU time to import what it stands on. A process imports that once, and each
run is a fork of it that imports the published packages themselves, with its own environment, folder and arguments.

As a program: `preloaded.py SOCKET SCRIPT PREFIX...` serves runs of a Python script; modules whose names begin with a
prefix are imported by each run.
"""

from __future__ import annotations

import array
import atexit
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import IO

_LENGTH = 4
_PARTS_OF_A_STREAM = 3


class Preloaded:
    """A Python script whose runs start with its packages loaded."""

    def __init__(self, python: Path, script: Path, without: tuple[str, ...], environment: dict[str, str]) -> None:
        place = Path(tempfile.mkdtemp(prefix="fal-preloaded-"))
        self._address = str(place / "socket")
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(self._address)
        listening.listen()
        # It ends when this process ends: nobody else holds the other end of its standard input.
        self._process = subprocess.Popen(
            [python, __file__, str(listening.fileno()), script, *without],
            pass_fds=(listening.fileno(),),
            stdin=subprocess.PIPE,
            env=environment,
        )
        listening.close()
        atexit.register(self._end, place)

    def _end(self, place: Path) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()
        Path(self._address).unlink()
        place.rmdir()

    def run(
        self, arguments: list[str], *, env: dict[str, str], cwd: Path, stdin: bytes, timeout: float
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the script once.

        Raises:
            TimeoutError: it did not end in time; it was killed.
        """
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
            given.write(stdin)
            given.seek(0)
            streams: list[IO[bytes]] = [given, out, errors]
            with socket.socket(socket.AF_UNIX) as link:
                link.connect(self._address)
                link.settimeout(timeout)
                request = json.dumps({"arguments": arguments, "env": env, "cwd": str(cwd)}).encode()
                descriptors = array.array("i", [each.fileno() for each in streams])
                link.sendmsg(
                    [len(request).to_bytes(_LENGTH, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)]
                )
                link.sendall(request)
                answer = b""
                while received := link.recv(64):
                    answer += received
            out.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(arguments, int(answer), out.read(), errors.read())


def _serve(listening: socket.socket, script: str, without: tuple[str, ...]) -> list[str]:
    """Fork for each run; return, in a fork, the run's arguments."""
    _load(script, without)
    import select

    while True:
        ready, _, _ = select.select([listening, 0], [], [])
        if 0 in ready:
            os._exit(0)
        link, _ = listening.accept()
        if os.fork() == 0:
            break
        link.close()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    # This process waits for the run and answers; the run is a process of its own, whose end is its own.
    listening.close()
    head, descriptors = _received(link)
    request = json.loads(_exactly(link, int.from_bytes(head, "big")))
    run = os.fork()
    if run:
        _answer(link, run)
    link.close()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    os.chdir(request["cwd"])
    return request["arguments"]


def _answer(link: socket.socket, run: int) -> None:
    import select

    watched = os.pidfd_open(run)
    ready, _, _ = select.select([watched, link], [], [])
    if watched not in ready:
        os.kill(run, signal.SIGKILL)  # who asked has gone
    _, status = os.waitpid(run, 0)
    with suppress(BrokenPipeError):
        link.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _load(script: str, without: tuple[str, ...]) -> None:
    """Import what the script's packages import to print their help. Leave those packages out."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        sys.argv = [script, "--help"]
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), suppress(SystemExit):
            runpy.run_path(script, run_name="__main__")
        names = [name for name in sys.modules if not name.startswith(without)]
        with os.fdopen(writing, "w") as stream:
            stream.write("\n".join(names))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        names = stream.read().splitlines()
    _, status = os.wait()
    assert status == 0, f"{script} cannot be imported"
    for name in names:
        if name not in sys.modules and not name.startswith("__"):
            with suppress(ImportError):  # made under its name by another module
                __import__(name)


def _received(link: socket.socket) -> tuple[bytes, list[int]]:
    head, parts, _, _ = link.recvmsg(_LENGTH, socket.CMSG_SPACE(_PARTS_OF_A_STREAM * array.array("i").itemsize))
    descriptors = array.array("i")
    for _, _, data in parts:
        descriptors.frombytes(data)
    return head, descriptors.tolist()


def _exactly(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += link.recv(size - len(data))
    return data


if __name__ == "__main__":
    _socket, _script, *_without = sys.argv[1:]
    sys.path[0] = str(Path(_script).parent)  # as a script has it
    # The run ends as a script ends: by its exception, after what it registered and its threads.
    sys.argv = [_script, *_serve(socket.socket(fileno=int(_socket)), _script, tuple(_without))]
    runpy.run_path(_script, run_name="__main__")
