"""Serve the baseline for exec. It is a gRPC server in its own process that runs the same commands.

There is no controller in between, and a broken connection ends the command. A thread reads the command's pipe or
terminal, and each chunk becomes a message. Threads and chunks of 128 KiB were faster than asyncio and chunks of 256 or
512 KiB.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import grpc

from fal_grpc.v1 import exec_pb2
from fal_runner.exec.command import open_pipes, open_terminal
from fal_runner.process.descriptors import read_on

_CHUNK_BYTES = 128 * 1024
_FLOOD_SECONDS = 0.002


class _Run:
    """A command with a terminal or pipes, started as exec starts it.

    Args:
        order: the command, and whether it has a terminal, as JSON.
    """

    def __init__(self, order: bytes) -> None:
        what = json.loads(order)
        self._tty = bool(what["tty"])
        stdin, self._outputs, theirs = open_terminal((24, 80)) if self._tty else open_pipes()
        assert stdin is not None
        self.stdin = stdin
        self._output = self._outputs[0][0]
        os.set_blocking(stdin, True)
        os.set_blocking(self._output, True)
        self._process = subprocess.Popen(
            what["command"], stdin=theirs[0], stdout=theirs[1], stderr=theirs[2], start_new_session=True
        )
        for fd in set(theirs):
            os.close(fd)

    def read(self) -> Iterator[bytes]:
        """Yield its output in exec's messages."""
        offset = 0
        while data := self._chunk():
            message = exec_pb2.ReadExecResponse(offset=offset, data=data, stream=exec_pb2.EXEC_STREAM_STDOUT)
            offset += len(data)
            yield message.SerializeToString()

    def kill(self) -> None:
        """Kill it, which also ends reading."""
        self._process.kill()

    def close(self) -> None:
        """Free its resources after the last read."""
        self.kill()
        self._process.wait()
        for fd in {self.stdin, *(fd for fd, _ in self._outputs)}:
            os.close(fd)

    def _chunk(self) -> bytes:
        with suppress(OSError):  # Linux raises this if the other side of a terminal is closed
            data = os.read(self._output, _CHUNK_BYTES)
            if not self._tty:
                return data
            os.set_blocking(self._output, False)
            data = read_on(self._output, _CHUNK_BYTES, data, flood_seconds=_FLOOD_SECONDS)
            os.set_blocking(self._output, True)
            return data
        return b""


def _read(request: bytes, _context: grpc.ServicerContext) -> Iterator[bytes]:
    """Yield everything that a command writes."""
    run = _Run(request)
    try:
        yield from run.read()
    finally:
        run.close()


def _echo(requests: Iterator[bytes], _context: grpc.ServicerContext) -> Iterator[bytes]:
    """Run the command of the first message; later messages are its input."""
    run = _Run(next(requests))

    def feed() -> None:
        with suppress(grpc.RpcError):  # the caller is gone
            for request in requests:
                os.write(run.stdin, request)
        run.kill()

    threading.Thread(target=feed, daemon=True).start()
    try:
        yield from run.read()
    finally:
        run.close()


def _serve() -> None:
    server = grpc.server(ThreadPoolExecutor(4))
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Read": grpc.unary_stream_rpc_method_handler(_read),
        "Echo": grpc.stream_stream_rpc_method_handler(_echo),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("raw", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(None).wait()


if __name__ == "__main__":
    _serve()
