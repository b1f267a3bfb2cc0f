"""Measure how long the first caller of an app without runners waits.

The same run measures the app without warm workers, both at a weaker level of isolation, and the lower bounds: a raw
ASGI app, and one with the app's libraries, from the start of Python to the first answer.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks._warm_workers import wait_for_workers, warm_workers

_ROUNDS = 9
_RAW = """
import socket, sys, threading, time, urllib.request
import uvicorn
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
listening = socket.create_server(("127.0.0.1", 0))
server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
print(urllib.request.urlopen(f"http://127.0.0.1:{listening.getsockname()[1]}/").read())
"""
_FASTAPI = _RAW.replace("import uvicorn\n", "import uvicorn, fastapi, pydantic, cloudpickle, msgpack\n")


class Controller:
    """A controller in its own process and directory.

    Args:
        before: what Python runs, which then runs the controller's module.
        variables: further environment variables.
    """

    def __init__(
        self, state: Path, *options: str, before: tuple[str, ...] = ("-m",), variables: Mapping[str, str] | None = None
    ) -> None:
        reading, writing = os.pipe()
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("FAL_", "ISOLATE_"))}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment |= variables or {}
        self._environment = environment
        with (state / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    *before,
                    "fal_server",
                    "--state-dir",
                    str(state),
                    "--ready-fd",
                    str(writing),
                    *options,
                ],
                pass_fds=(writing,),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        os.close(writing)
        with os.fdopen(reading) as ready:
            message = json.loads(ready.readline())
        self.address = f"127.0.0.1:{message['port']}"
        self._environment |= {
            "FAL_GRPC_HOST": self.address,
            "FAL_KEY": (state / "admin.key").read_text().strip(),
            "HOME": str(state),
        }

    def fal(self, *arguments: str) -> str:
        """Run a command; return its output."""
        command = [sys.executable, "-m", "fal_cli", *arguments]
        return subprocess.run(command, env=self._environment, check=True, capture_output=True, text=True).stdout

    def first_byte(self, app: str) -> float:
        """Return the seconds from a request to its answer's first byte."""
        request = urllib.request.Request(f"http://{self.address}/local/{app}", b'{"name": "Ada"}')
        request.add_header("Content-Type", "application/json")
        start = time.perf_counter()
        with urllib.request.urlopen(request, timeout=120) as answer:
            answer.read(1)
        return time.perf_counter() - start

    def end_runner(self, *, workers: int) -> None:
        """End the runners, as after keep_alive, and await an idle controller.

        Args:
            workers: how many warm workers to wait for.
        """
        for runner in json.loads(self.fal("runners", "list", "--json"))["runners"]:
            self.fal("runners", "stop", runner["runner_id"])
        while json.loads(self.fal("runners", "list", "--json"))["runners"]:
            time.sleep(0.05)  # no command waits for the end of all, and this is not measured
        wait_for_workers({self.process.pid: workers})

    def memory_mib(self) -> float:
        """Return the unshared memory of a warm worker. Its shim and the processes of its sandbox count, too."""
        waiting = [worker.parent() for worker in warm_workers(self.process.pid)]
        found = [process for shim in waiting if shim is not None for process in (shim, *shim.children(recursive=True))]
        return sum(process.memory_full_info().uss for process in found) / 2**20

    def close(self) -> None:
        """Stop the controller."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def _process(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


@contextmanager
def _deployed(*options: str) -> Generator[Controller]:
    """Run a controller with the deployed app, without runners."""
    hello = Path(__file__).parents[1] / "examples" / "hello.py"
    with tempfile.TemporaryDirectory() as folder:
        controller = Controller(Path(folder), *options)
        try:
            controller.fal("deploy", str(hello), "--app-name", "cold", "--auth", "public")
            yield controller
        finally:
            controller.close()


def main() -> None:
    """Measure and print."""
    warm: list[float] = []
    plain: list[float] = []
    warm_view: list[float] = []
    plain_view: list[float] = []
    raw: list[float] = []
    libraries: list[float] = []
    none, view = ("--warm-workers", "0"), ("--isolation", "view")
    with (
        _deployed() as with_workers,
        _deployed(*none) as without,
        _deployed(*view) as viewing,
        _deployed(*none, *view) as viewing_without,
    ):
        wait_for_workers({with_workers.process.pid: 1})
        first = with_workers.first_byte("cold")
        for controller, workers in ((without, 0), (viewing, 1), (viewing_without, 0)):
            controller.first_byte("cold")
            controller.end_runner(workers=workers)
        with_workers.end_runner(workers=1)
        for round_number in range(_ROUNDS):
            # Controllers without workers first, because the others prewarm workers after a start. Each level is first
            # in turn.
            pairs = [(without, plain), (viewing_without, plain_view)], [(with_workers, warm), (viewing, warm_view)]
            for pair in pairs:
                for controller, took in pair if round_number % 2 else reversed(pair):
                    took.append(controller.first_byte("cold"))
            raw.append(_process(_RAW))
            libraries.append(_process(_FASTAPI))
            for controller, workers in ((with_workers, 1), (viewing, 1), (without, 0), (viewing_without, 0)):
                controller.end_runner(workers=workers)
        memory = with_workers.memory_mib()
    print(f"{'median, least in ms':52}{'':8}to beat")
    print(f"{'first start after the build, a worker waits':52}{first * 1000:7.0f}")
    for name, took, target in (
        ("later starts, with a warm worker", warm, "60"),
        ("the same with --isolation view", warm_view, ""),
        ("later starts with --warm-workers 0", plain, ""),
        ("the same with --isolation view", plain_view, ""),
        ("python to first answer, with FastAPI and cloudpickle", libraries, ""),
        ("python to first answer, raw ASGI under uvicorn", raw, ""),
    ):
        print(f"{name:52}{statistics.median(took) * 1000:7.0f}{min(took) * 1000:6.0f}   {target}")
    ratios = {
        "without a worker": statistics.median(plain),
        "python with FastAPI": statistics.median(libraries),
        "raw": statistics.median(raw),
    }
    middle = statistics.median(warm)
    for name, sandboxes, views in (("with a warm worker", warm, warm_view), ("without", plain, plain_view)):
        ratio = statistics.median(here / there for here, there in zip(sandboxes, views, strict=True))
        print(f"a sandbox costs, {name}: {ratio:.2f} of a view, {min(sandboxes) / min(views):.2f} by the least")
    print(f"the first start, of later ones: {first / middle:.2f}")
    print("a warm worker, of", ", of ".join(f"{name} {middle / base:.2f}" for name, base in ratios.items()))
    print(f"unshared memory of a warm worker and its shim: {memory:.0f} MiB; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
