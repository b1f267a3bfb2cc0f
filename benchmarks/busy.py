"""Measure requests through the gateway while the controller works hard.

It builds environments, has ten followers of the app's lines, runs backups, holds a thousand waiting requests, and does
all of this at once. Quiet rounds come before and after each.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.endpoint import APP, Server
from tests.support.controller import BIN, Controller, running

_ROUNDS = 3
_FOLLOWERS = 10
_WAITING = 1_000
_TARGET = 1.5
_AT_ONCE = (1, 8)
_BUILT = """
import fal


class Built(fal.App):
    requirements = ["six"]

    @fal.endpoint("/")
    def answer(self) -> int:
        return 0
"""
_SLOW = """
import time

import fal


class Slow(fal.App, keep_alive=600, max_concurrency=1):
    machine_type = "XS"

    @fal.endpoint("/")
    def answer(self) -> int:
        time.sleep(3600)  # its requests wait
        return 0
"""


@contextmanager
def _again_and_again(work: Callable[[], object]) -> Generator[None]:
    """Do something in a thread until the end."""
    ending = threading.Event()

    def run() -> None:
        while not ending.is_set():
            work()

    with ThreadPoolExecutor(1) as threads:
        done = threads.submit(run)
        try:
            yield
        finally:
            ending.set()
            done.result()


@contextmanager
def builds(controller: Controller, place: Path) -> Generator[None]:
    """Build an environment again and again, with a deploy."""
    app = place / "built.py"
    app.write_text(_BUILT)
    with _again_and_again(lambda: controller.fal("deploy", str(app), "--app-name", "built", "--no-cache", "--yes")):
        yield


@contextmanager
def followers(controller: Controller, _place: Path) -> Generator[None]:
    """Follow the app's lines, which each request adds to."""
    command = [str(BIN / "fal"), "apps", "logs", "bench", "--follow"]
    with ExitStack() as stack:
        for _ in range(_FOLLOWERS):
            one = subprocess.Popen(command, env=controller.environment, stdout=subprocess.PIPE)
            stack.callback(one.wait)
            assert one.stdout is not None
            reader = threading.Thread(target=one.stdout.read)
            stack.callback(reader.join)
            stack.callback(one.terminate)
            one.stdout.readline()  # it follows
            reader.start()
        yield


@contextmanager
def backups(controller: Controller, place: Path) -> Generator[None]:
    """Back up the state directory again and again."""

    def back_up() -> None:
        with tempfile.TemporaryDirectory(dir=place) as folder:
            controller.fal("db", "backup", f"{folder}/backup", "--state-dir", str(controller.state_dir))

    with _again_and_again(back_up):
        yield


@contextmanager
def waiting(controller: Controller, _place: Path) -> Generator[None]:
    """Let requests wait behind one that does not end."""
    url = f"http://{controller.host}/queue/local/slow"

    def submit(_number: int) -> None:
        request = urllib.request.Request(url, b"{}", {"Authorization": f"Key {controller.key}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(submit, range(_WAITING)))
    try:
        yield
    finally:
        controller.fal("queue", "flush", "slow", "--yes")


@contextmanager
def everything(controller: Controller, place: Path) -> Generator[None]:
    """Do all of these."""
    with ExitStack() as stack:
        for one in (waiting, followers, builds, backups):
            stack.enter_context(one(controller, place))
        yield


WORK = {
    "a deploy builds": builds,
    f"{_FOLLOWERS} followers": followers,
    "a backup runs": backups,
    f"{_WAITING:,} wait": waiting,
    "all of these": everything,
}


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "state", "--warm-workers", "0") as controller:
        place = Path(folder)
        for name, text in (("bench", APP), ("slow", _SLOW)):
            (place / f"{name}_app.py").write_text(text)
            controller.fal("deploy", str(place / f"{name}_app.py"), "--app-name", name)
        assert controller.call("/local/bench/async", {"name": "Ada"}, key=controller.key).status == 200
        print(f"p99 (p50) in ms of a request through the gateway, and the median ratio to quiet; aim {_TARGET}")
        for connections in _AT_ONCE:
            for name, work in WORK.items():
                quiet, busy = (Server(controller.port, "/local/bench", {}, controller.key) for _ in range(2))
                for _ in range(_ROUNDS):
                    quiet.load("async", connections)
                    with work(controller, place):
                        busy.load("async", connections)
                _show(name, connections, quiet, busy)
    print(f"load {os.getloadavg()[0]:.1f}")


def _show(name: str, connections: int, quiet: Server, busy: Server) -> None:
    at = "async", connections
    pairs = zip(busy.p99s[at], quiet.p99s[at], strict=True)
    ratio = statistics.median(hard / calm for hard, calm in pairs)
    shown = [f"{statistics.median(one.p99s[at]):8.2f} ({statistics.median(one.p50s[at]):.2f})" for one in (quiet, busy)]
    print(f"{connections:2} connections, {name:16} quiet {shown[0]}  busy {shown[1]}  {ratio:5.2f}", flush=True)


if __name__ == "__main__":
    main()
