"""Measure exec's throughput and the echo of a key. A raw gRPC stream is the baseline."""

from __future__ import annotations

import json
import os
import pty
import queue
import statistics
import subprocess
import sys
import tempfile
import time
import tty
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import psutil

from fal.api import SyncServerlessClient
from fal_grpc.adapter.shell import STDERR
from fal_grpc.v1 import exec_pb2
from tests.support.place import Place, entered

MIB = 2**20
PIPE_BYTES = 256 * MIB
TERMINAL_BYTES = 32 * MIB
CHUNK = 512 * 1024
ROUNDS = 3
KEYS = 300


@contextmanager
def raw_server() -> Generator[tuple[grpc.Channel, int]]:
    """Run the raw server in its own process, like a runner. Yield a channel to it and its pid."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks._exec_echo"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        port = int(process.stdout.readline())
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel, process.pid
        process.stdin.close()


def zeros(size: int) -> list[str]:
    """Return a command that writes this many bytes."""
    return ["dd", "if=/dev/zero", "bs=1M", f"count={size // MIB}", "status=none"]


def raw_bytes(channel: grpc.Channel, size: int, *, terminal: bool) -> Callable[[], int]:
    """Read the same command from the raw stream. It comes message by message, as in exec's client."""

    def read() -> int:
        call: grpc.UnaryStreamMultiCallable[bytes, exec_pb2.ReadExecResponse] = channel.unary_stream(
            "/raw/Read", response_deserializer=exec_pb2.ReadExecResponse.FromString
        )
        return sum(len(message.data) for message in call(raw_order(zeros(size), terminal=terminal)))

    return read


def raw_order(command: list[str], *, terminal: bool) -> bytes:
    """Return the raw server's order."""
    return json.dumps({"command": command, "tty": terminal}).encode()


def exec_bytes(client: SyncServerlessClient, place: Place, size: int, *, terminal: bool) -> Callable[[], int]:
    """Read a command that writes zeros, from start to end."""

    def read() -> int:
        with client.runners.exec_stream(place.runner_id, zeros(size), tty=terminal) as session:
            return sum(len(output.data) for output in session if output.stream != STDERR)

    return read


def shell_bytes(client: SyncServerlessClient, place: Place, size: int) -> Callable[[], int]:
    """Read the same over ShellRunner, whose commands end with the connection."""

    def read() -> int:
        with client.controller().shell_runner(place.runner_id, zeros(size), tty=False) as session:
            return sum(len(output.data) for output in session)

    return read


def local_terminal(size: int) -> Callable[[], int]:
    """Read the same command from a local terminal, with nothing in between."""

    def read() -> int:
        ours, theirs = pty.openpty()
        tty.setraw(theirs)
        with subprocess.Popen(zeros(size), stdout=theirs):
            os.close(theirs)
            length = 0
            with suppress(OSError):  # Linux raises this if the other side of the terminal is closed
                while data := os.read(ours, CHUNK):
                    length += len(data)
        os.close(ours)
        return length

    return read


def rates(ways: dict[str, tuple[Callable[[], int], int]], pids: list[int]) -> dict[str, tuple[float, float]]:
    """Return each way's MB/s. Return the MB/s that its busiest process would reach on its own core, too.

    The ways alternate, so that other work on the machine affects all alike; the second number does not depend on it.
    """
    processes = [psutil.Process(pid) for pid in pids]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (way, size) in ways.items():
            before = [sum(process.cpu_times()[:2]) for process in processes]
            start = time.perf_counter()
            assert way() == size
            seconds = time.perf_counter() - start
            used = [sum(process.cpu_times()[:2]) - was for process, was in zip(processes, before, strict=True)]
            found[name].append((size / seconds / 1e6, size / max(*used, 0.01) / 1e6))
    return {
        name: (statistics.median(wall for wall, _ in times), statistics.median(cpu for _, cpu in times))
        for name, times in found.items()
    }


def echo_command(*, terminal: bool) -> list[str]:
    """Return a command that prints "ready" and then echoes its input."""
    return ["sh", "-c", "stty raw -echo; printf ready; exec cat" if terminal else "printf ready; exec cat"]


def raw_echo(channel: grpc.Channel, *, terminal: bool) -> Callable[[], Callable[[], None]]:
    """Send a key to an echoing command on the raw stream. Wait for the echo."""

    def prepare() -> Callable[[], None]:
        keys: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        keys.put(raw_order(echo_command(terminal=terminal), terminal=terminal))
        call: grpc.StreamStreamMultiCallable[bytes, exec_pb2.ReadExecResponse] = channel.stream_stream(
            "/raw/Echo", response_deserializer=exec_pb2.ReadExecResponse.FromString
        )
        answers: Iterator[exec_pb2.ReadExecResponse] = call(iter(keys.get, b"end"))
        seen = b""
        while b"ready" not in seen:
            seen += next(answers).data

        def press() -> None:
            keys.put(b"x")
            next(answers)

        return press

    return prepare


def exec_echo(client: SyncServerlessClient, place: Place, *, terminal: bool) -> Callable[[], Callable[[], None]]:
    """Send a key to an echoing command, and wait for it."""

    def prepare() -> Callable[[], None]:
        session = client.runners.exec_stream(
            place.runner_id, echo_command(terminal=terminal), tty=terminal, interactive=True
        )
        outputs = iter(session)
        seen = b""
        while b"ready" not in seen:
            seen += next(outputs).data

        def press() -> None:
            session.send(b"x")
            next(outputs)

        return press

    return prepare


def echoes(ways: dict[str, Callable[[], Callable[[], None]]]) -> dict[str, tuple[float, float]]:
    """Return (p50, p99) of each way in milliseconds; the ways alternate."""
    presses = {name: prepare() for name, prepare in ways.items()}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(KEYS):
        for name, press in presses.items():
            start = time.perf_counter()
            press()
            taken[name].append((time.perf_counter() - start) * 1000)
    return {name: (statistics.median(times), statistics.quantiles(times, n=100)[98]) for name, times in taken.items()}


def main() -> None:
    """Print MB/s and milliseconds, and their ratio to the raw stream."""
    with (
        tempfile.TemporaryDirectory() as directory,
        entered(Path(directory) / "state") as place,
        raw_server() as (channel, raw_pid),
        place.sdk() as front,
        SyncServerlessClient(host=f"127.0.0.1:{place.controller.grpc_port}", api_key=place.controller.key) as direct,
    ):
        identity = json.loads((place.controller.state_dir / "runners" / place.runner_id / "shim.json").read_text())
        pids = [os.getpid(), place.controller.process.pid, identity["pid"], raw_pid]
        show_rates(
            {
                "raw stream, pipe": (raw_bytes(channel, PIPE_BYTES, terminal=False), PIPE_BYTES),
                "exec, pipe, gRPC port": (exec_bytes(direct, place, PIPE_BYTES, terminal=False), PIPE_BYTES),
                "exec, pipe, shared port": (exec_bytes(front, place, PIPE_BYTES, terminal=False), PIPE_BYTES),
                "ShellRunner, pipe": (shell_bytes(direct, place, PIPE_BYTES), PIPE_BYTES),
            },
            pids,
        )
        show_rates(
            {
                "raw stream, terminal": (raw_bytes(channel, TERMINAL_BYTES, terminal=True), TERMINAL_BYTES),
                "local terminal": (local_terminal(TERMINAL_BYTES), TERMINAL_BYTES),
                "exec, terminal, gRPC port": (exec_bytes(direct, place, TERMINAL_BYTES, terminal=True), TERMINAL_BYTES),
            },
            pids,
        )
        for kind, terminal in (("terminal", True), ("pipe", False)):
            show_echoes(
                {
                    f"raw echo, {kind}": raw_echo(channel, terminal=terminal),
                    f"exec, {kind}, gRPC port": exec_echo(direct, place, terminal=terminal),
                    f"exec, {kind}, shared port": exec_echo(front, place, terminal=terminal),
                }
            )
        print("load average: {:.1f} {:.1f} {:.1f}".format(*os.getloadavg()))


def show_rates(ways: dict[str, tuple[Callable[[], int], int]], pids: list[int]) -> None:
    """Print each way's MB/s, and its ratio to the first."""
    found = rates(ways, pids)
    raw = next(iter(found.values()))
    print(f"{'':28} {'MB/s':>7} {'of raw':>7}   {'MB/s a core':>11} {'of raw':>7}")
    for name, (rate, core) in found.items():
        print(f"{name:28} {rate:7.0f} {rate / raw[0]:7.2f}   {core:11.0f} {core / raw[1]:7.2f}")


def show_echoes(ways: dict[str, Callable[[], Callable[[], None]]]) -> None:
    """Print the milliseconds of each way."""
    print(f"{'':28} {'p50 ms':>7} {'p99 ms':>7}")
    for name, (median, tail) in echoes(ways).items():
        print(f"{name:28} {median:7.2f} {tail:7.2f}")


if __name__ == "__main__":
    main()
