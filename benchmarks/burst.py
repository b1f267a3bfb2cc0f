"""Measure the time to each first byte in bursts from zero. The bursts are of 16 apps and of 16 runners of one app.

Earlier bursts have set how many workers wait. The same run measures the first burst, for which no worker waits.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.cold_start import Controller

_COUNT = 16
_ROUNDS = 3
# Occupies its runner, so that each request needs another one, and sends the first byte at once.
_APP = """
import time
from collections.abc import Iterator

import fal
from fastapi.responses import StreamingResponse


class Held(fal.App, name="held", keep_alive=60, max_concurrency=16):
    app_auth = "public"

    @fal.endpoint("/")
    def hold(self) -> StreamingResponse:
        def answer() -> Iterator[bytes]:
            yield b"x"
            time.sleep(10)  # holds the runner while all others are asked for

        return StreamingResponse(answer())
"""


def _first_byte(url: str, start: float) -> float:
    request = urllib.request.Request(url, b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=240) as answer:
        answer.read(1)
        return time.perf_counter() - start


def _burst(controller: Controller, apps: list[str]) -> list[float]:
    with ThreadPoolExecutor(len(apps)) as threads:
        start = time.perf_counter()
        urls = [f"http://{controller.address}/local/{app}/" for app in apps]
        return sorted(threads.map(_first_byte, urls, [start] * len(apps)))


def _report(name: str, took: list[float], target: str) -> None:
    first, middle, last = took[0] * 1000, statistics.median(took) * 1000, took[-1] * 1000
    print(f"{name:44}{first:7.0f}{middle:8.0f}{last:8.0f}{last / first:8.1f}   {target}", flush=True)


def main() -> None:
    """Measure and print."""
    print(f"{_COUNT} at once, ms to the first byte of{'':7}{'first':>7}{'middle':>8}{'last':>8}{'ratio':>8}   to beat")
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        (directory / "held.py").write_text(_APP)
        (directory / "state").mkdir()
        controller = Controller(directory / "state")
        try:
            names = [f"held-{number}" for number in range(_COUNT)]
            for name in names:
                controller.fal("deploy", str(directory / "held.py"), "--app-name", name)
            for what, apps in (("runners of one app", names[:1] * _COUNT), ("apps", names)):
                if apps is not names:
                    _report(f"{what}, of which nobody knew", _burst(controller, apps), "")
                took: list[list[float]] = []
                for _ in range(_ROUNDS):
                    controller.end_runner(workers=_COUNT)
                    took.append(_burst(controller, apps))
                took.sort(key=lambda each: each[-1])
                _report(f"{what}, median of {_ROUNDS}", took[_ROUNDS // 2], "4")
        finally:
            controller.close()
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
