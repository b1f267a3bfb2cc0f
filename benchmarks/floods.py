"""Measure a controller's memory under floods of callers without a key. It does so before each, and at its peak.

Each flood is six calls at once. The last two store the body in the queue and send it to a runner.
"""

from __future__ import annotations

import os
import random
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import grpc
import psutil

from benchmarks.cold_start import Controller

_AT_ONCE = 6
_MIB = 2**20
_BODY = 60 * _MIB
_MESSAGE = 200 * _MIB
_SETTLE_SECONDS = 10.0
_SAMPLE_SECONDS = 0.002
_APP = """
import fal


class Public(fal.App, name="public", keep_alive=300, max_concurrency=1):
    app_auth = "public"

    @fal.endpoint("/")
    def count(self) -> dict[str, str]:
        return {}


class Private(fal.App, name="private", keep_alive=300):
    @fal.endpoint("/")
    def count(self) -> dict[str, str]:
        return {}
"""


def _sends_grpc(address: str, call: str) -> str:
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(address, options=options, compression=grpc.Compression.Gzip) as channel:
        # On the wire unary calls are streams, too.
        kind = channel.stream_unary if call == "ListRunners" else channel.stream_stream
        method = kind(f"/fal.v1.Runners/{call}", request_serializer=bytes, response_deserializer=bytes)
        try:
            list(method(iter([bytes(_MESSAGE)]), timeout=300))
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"


def _posts(address: str, path: str, body: bytes) -> str:
    """Send a body. Return the status of the answer, which may come before the body's end."""
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port)), timeout=300) as sock:
        head = f"POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        try:
            sock.sendall(head.encode())
            sock.sendall(body)
        except OSError:
            pass  # it was refused before its end
        try:
            return sock.recv(4096).split(b" ", 2)[1].decode()
        except (OSError, IndexError):
            return "closed"


class _Peak:
    """Reads the resident memory of a process until the block ends."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._end = threading.Event()
        self.before = process.memory_info().rss
        self.highest = self.before

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.wait(_SETTLE_SECONDS)  # what was accepted goes on: a stored body is sent to a runner
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.is_set():
            self.highest = max(self.highest, self._process.memory_info().rss)
            self._end.wait(_SAMPLE_SECONDS)


def main() -> None:
    """Measure and print."""
    zeros, noise = bytes(_BODY), random.Random(1).randbytes(_BODY)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        (directory / "app.py").write_text(_APP)
        (directory / "state").mkdir()
        controller = Controller(directory / "state")
        try:
            for name in ("Public", "Private"):
                controller.fal("deploy", f"{directory / 'app.py'}::{name}")
            controller.first_byte("public/")
            address = controller.address
            floods: dict[str, Callable[[int], str]] = {
                "gRPC, 200 MiB of zeros in gzip, unary": lambda _: _sends_grpc(address, "ListRunners"),
                "gRPC, 200 MiB of zeros in gzip, streams": lambda _: _sends_grpc(address, "ShellRunner"),
                "HTTP, 60 MiB to a private app": lambda _: _posts(address, "/local/private/", noise),
                "HTTP, 60 MiB to the queue of a private app": lambda _: _posts(address, "/queue/local/private/", noise),
                "HTTP, 60 MiB to a public app": lambda _: _posts(address, "/local/public/", noise),
                "HTTP, 60 MiB of zeros to its queue": lambda _: _posts(address, "/queue/local/public/", zeros),
                "HTTP, 60 MiB of noise to its queue": lambda _: _posts(address, "/queue/local/public/", noise),
            }
            print(f"{_AT_ONCE} at once, without a key{'':17}{'before':>10}{'peak':>10}{'more':>10}   answers")
            process = psutil.Process(controller.process.pid)
            for name, flood in floods.items():
                with _Peak(process) as memory, ThreadPoolExecutor(_AT_ONCE) as threads:
                    answers = Counter(threads.map(flood, range(_AT_ONCE)))
                said = ", ".join(f"{count} {answer}" for answer, count in answers.items())
                more = (memory.highest - memory.before) / _MIB
                figures = f"{memory.before / _MIB:6.0f} MiB{memory.highest / _MIB:6.0f} MiB{more:6.0f} MiB"
                print(f"{name:44}{figures}   {said}", flush=True)
        finally:
            controller.close()
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
