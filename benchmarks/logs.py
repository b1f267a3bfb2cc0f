"""Measure log lines from an app's print to a follower. They go through shim, controller and database.

The same run measures the baselines: printing alone, storing alone, and a raw gRPC stream of ready lines.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil

from benchmarks._log_store import cost_of_little, store_lines_per_second
from benchmarks._log_stream import BATCH
from fal.api import SyncServerlessClient
from fal_grpc.adapter.log import LogQuery
from fal_grpc.channel import ChannelOptions
from fal_grpc.controller import Controller as Calls
from fal_grpc.credentials import NoCredentials
from fal_grpc.target import parse_target
from tests.support.controller import BIN, Controller, running

_LINES = 50_000
_WIDTH = 100  # bytes of a line
_ROUNDS = 3
_TICKS = 200
_PAUSE_SECONDS = 0.01
_APP = """
import threading
import time

import fal
from pydantic import BaseModel


class Wanted(BaseModel):
    count: int
    width: int = 0
    pause: float = 0.0


def in_background(work):
    threading.Thread(target=work, daemon=True).start()


class Talker(fal.App, keep_alive=600, max_concurrency=1):
    machine_type = "XS"
    app_auth = "public"

    @fal.endpoint("/burst")
    def burst(self, wanted: Wanted) -> int:
        def work():
            for number in range(wanted.count):
                print(f"{number:0{wanted.width}}")
            print("end of burst")

        in_background(work)
        return 0

    @fal.endpoint("/tick")
    def tick(self, wanted: Wanted) -> int:
        def work():
            for _ in range(wanted.count):
                time.sleep(wanted.pause)  # the pace of the lines whose delay is measured
                print("tick", time.time_ns())
            print("end of ticks")

        in_background(work)
        return 0
"""


class Raw:
    """A process that serves the raw stream."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "benchmarks._log_stream", "serve"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.address = f"127.0.0.1:{int(self._process.stdout.readline())}"

    def lines_per_second(self, kind: str) -> float:
        """Read ready lines with the same client, and return the rate. They come in batches or one in each message."""
        calls = Calls(parse_target(self.address), NoCredentials(), ChannelOptions())
        started, count = 0.0, 0
        for batch in calls.follow_logs(LogQuery(runner_id="r", search=f"{kind} {_LINES} {_WIDTH}")):
            started = started or time.perf_counter()
            count += len(batch.entries)
        rate = count / (time.perf_counter() - started)
        calls.close()
        return rate

    def close(self) -> None:
        """Stop it."""
        self._process.communicate(timeout=20)


def prints_per_second() -> float:
    """Measure printing as an app does. The pipe's reader discards everything."""
    command = [sys.executable, "-m", "benchmarks._log_stream", "lines", str(_LINES), str(_WIDTH)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while os.read(process.stdout.fileno(), 65536):
            continue
        return float(process.stderr.read())


def follow(host: str, key: str, since: datetime) -> Iterator[str]:
    """Yield the app's messages from a time on."""
    with SyncServerlessClient(host, key) as client:
        for entry in client.apps.logs("bench", follow=True, since=since, sources=["stdout"]):
            yield entry.message


def cpu_seconds(controller: Controller) -> float:
    """Return the CPU time of controller, shims and apps."""
    own = psutil.Process(controller.process.pid)
    return sum(sum(process.cpu_times()[:2]) for process in (own, *own.children(recursive=True)))


def lines_per_second(controller: Controller) -> tuple[float, float]:
    """Let the app print, and read up to the last line. Return lines a second, and CPU microseconds of a line."""
    messages = follow(f"127.0.0.1:{controller.grpc_port}", controller.key, datetime.now(UTC))
    controller.call("/local/bench/tick", {"count": 1})  # opens the stream before the measurement
    while next(messages) != "end of ticks":
        continue
    used = cpu_seconds(controller)
    controller.call("/local/bench/burst", {"count": _LINES, "width": _WIDTH})
    started, count = 0.0, 0
    for message in messages:
        started = started or time.perf_counter()
        if message == "end of burst":
            break
        count += message.isdigit()
    assert count == _LINES, count
    rate = count / (time.perf_counter() - started)
    return rate, (cpu_seconds(controller) - used) / count * 1e6


def delays(command: list[str], environment: dict[str, str] | None, app_of: Controller | None) -> list[float]:
    """Return the sorted milliseconds from each print to its line. A pipe carries the lines."""
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        found: list[float] = []
        since = time.time_ns()
        if app_of is not None:
            app_of.call("/local/bench/tick", {"count": 1})
            while _printed_at(process.stdout.readline()) < since:
                continue
            app_of.call("/local/bench/tick", {"count": _TICKS, "pause": _PAUSE_SECONDS})
        while len(found) < _TICKS and (line := process.stdout.readline()):
            printed_at = _printed_at(line)
            if printed_at >= since:
                found.append((time.time_ns() - printed_at) / 1e6)
        process.terminate()
    return sorted(found)


def _printed_at(line: bytes) -> int:
    """Return the nanoseconds since the epoch in a line, or 0."""
    text = line.decode().rpartition("tick ")[2].strip()
    return int(text) if text.isdigit() else 0


def at(share: float, values: list[float]) -> float:
    """Return a quantile of sorted values."""
    return values[min(len(values) - 1, int(share * len(values)))]


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as place, running(Path(place) / "state") as controller:
        app = Path(place) / "bench_app.py"
        app.write_text(_APP)
        controller.fal("deploy", str(app), "--app-name", "bench", "--auth", "public")
        controller.call("/local/bench/tick", {"count": 1})
        raw = Raw()
        runs: dict[str, list[float]] = {"ours": [], "print": [], "store": [], "batch": [], "single": []}
        used: list[float] = []
        for _ in range(_ROUNDS):
            rate, cpu = lines_per_second(controller)
            runs["ours"].append(rate)
            used.append(cpu)
            runs["print"].append(prints_per_second())
            runs["store"].append(store_lines_per_second(_LINES, BATCH, _WIDTH))
            runs["batch"].append(raw.lines_per_second("batch"))
            runs["single"].append(raw.lines_per_second("single"))
        rates = {name: statistics.median(values) for name, values in runs.items()}
        print(f"lines of {_WIDTH} bytes a second, print to follower, stored: {rates['ours']:,.0f}")
        print(f"CPU a line, in app, shim and controller: {statistics.median(used):.1f} us")
        for name, kind in (
            ("printing alone", "print"),
            (f"storing alone, {BATCH} a transaction", "store"),
            (f"raw stream, {BATCH} a message", "batch"),
            ("raw stream, one line a message", "single"),
        ):
            print(f"{name}: {rates[kind]:,.0f} (ratio {rates['ours'] / rates[kind]:.2f})")
        together, alone = cost_of_little()
        print(f"many runners, one line at a time: {together:.0f} us CPU a line; one by one {alone:.0f} us")
        fal = [str(BIN / "fal"), "apps", "logs", "bench", "--follow", "--source", "stdout"]
        ours = delays(fal, controller.environment, controller)
        stub = [sys.executable, "-m", "benchmarks._log_stream", "print", raw.address, str(_TICKS), str(_PAUSE_SECONDS)]
        plain = delays(stub, None, None)
        raw.close()
        for name, values in (("print to screen", ours), ("raw stream", plain)):
            print(f"{name:16}p50 {at(0.5, values):6.2f} ms   p99 {at(0.99, values):6.2f} ms")


if __name__ == "__main__":
    main()
