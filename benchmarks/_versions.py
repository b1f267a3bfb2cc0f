"""Compare another checkout with this one, as users meet both: `python -m benchmarks._versions DIRECTORY [FIGURE ...]`.

Each version runs its own controller in its own environment, on a directory of its own, with its own defaults, and the
measurements of the versions alternate. This one runs a second time with the level of isolation at which releases
without levels ran apps.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.http_hop import load

_HERE = Path(__file__).resolve().parents[1]
_ROUNDS = 5
_LINES = 5_000
_QUEUED = 200
_APP = f"""
import fal


class Measured(fal.App, name="measured", keep_alive=3600, max_concurrency=1, max_multiplexing=64):
    app_auth = "public"

    @fal.endpoint("/")
    def run(self) -> dict:
        return {{}}

    @fal.endpoint("/lines")
    def lines(self) -> dict:
        for number in range({_LINES}):
            print("line", number)
        return {{}}


class Cold(fal.App, name="cold", keep_alive=300):
    app_auth = "public"

    @fal.endpoint("/")
    def run(self) -> dict:
        return {{}}
"""


class Version:
    """A checkout's controller, with a deployed app."""

    def __init__(self, name: str, checkout: Path, folder: Path, *options: str) -> None:
        self.name = name
        self._checkout = checkout
        self._state = folder / "state"
        self._state.mkdir(parents=True)
        self._options = options
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("FAL_", "ISOLATE_", "PYTHON"))}
        self._environment = {**kept, "HOME": str(folder), "FAL_CONFIG_PATH": str(folder / "config.toml")}
        self._app = folder / "measured.py"
        self._app.write_text(_APP)
        self.start()
        self.fal("deploy", f"{self._app}::Measured")
        self.fal("deploy", f"{self._app}::Cold")
        self.call("measured")

    def start(self) -> float:
        """Start the controller; return the seconds until it answers."""
        reading, writing = os.pipe()
        python = self._checkout / ".venv" / "bin" / "python"
        command = [str(python), "-m", "fal_server", "--state-dir", str(self._state), "--ready-fd", str(writing)]
        began = time.perf_counter()
        with (self._state.parent / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *self._options],
                pass_fds=(writing,),
                cwd=self._checkout,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
            )
        os.close(writing)
        with os.fdopen(reading) as ready:
            self.port = int(json.loads(ready.readline())["port"])
        took = time.perf_counter() - began
        self.key = (self._state / "admin.key").read_text().strip()
        self._environment |= {"FAL_GRPC_HOST": f"127.0.0.1:{self.port}", "FAL_KEY": self.key}
        return took

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the controller."""
        self.process.send_signal(number)
        self.process.wait(90)

    def start_again(self) -> float:
        """Kill the controller and start it beside its living runners. Return the seconds until it answers."""
        self.stop(signal.SIGKILL)
        return self.start()

    def fal(self, *arguments: str) -> str:
        """Run the version's command; return its output."""
        command = [str(self._checkout / ".venv" / "bin" / "fal"), *arguments]
        done = subprocess.run(
            command,
            env=self._environment,
            check=False,
            stdin=subprocess.DEVNULL,  # so no version asks a person
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            raise RuntimeError(f"{self.name}: fal {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def command(self, *arguments: str) -> float:
        """Return the seconds of a whole command."""
        began = time.perf_counter()
        self.fal(*arguments)
        return time.perf_counter() - began

    def call(self, path: str) -> float:
        """Return the seconds of a call of an app."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/local/{path}", b"{}")
        request.add_header("Content-Type", "application/json")
        began = time.perf_counter()
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{self.name}: {path}: {error.code} {error.read().decode()}") from error
        return time.perf_counter() - began

    def runner(self, app: str) -> str:
        """Return the id of an app's runner."""
        runners = json.loads(self.fal("runners", "list", "--json"))["runners"]
        return str(next(runner["runner_id"] for runner in runners if runner["alias"] == app))

    def deploy(self) -> float:
        """Return the seconds of a deploy whose environment is built."""
        return self.command("deploy", f"{self._app}::Cold")

    def cold_start(self) -> float:
        """Return the seconds from a call to a new runner's answer."""
        for runner in json.loads(self.fal("runners", "list", "--json"))["runners"]:
            if runner["alias"] == "cold":
                self.fal("runners", "stop", runner["runner_id"])
        while any(runner["alias"] == "cold" for runner in json.loads(self.fal("runners", "list", "--json"))["runners"]):
            time.sleep(0.05)  # no command waits for its end, and this is not measured
        time.sleep(4)  # for the next warm worker, which is not visible from outside
        return self.call("cold")

    def requests(self, connections: int, prefix: str = "") -> dict[str, float]:
        """Send requests for a second. Return rate, times, and the controller's CPU time of one."""
        return load(self.port, f"{prefix}/local/measured/".encode(), self.key, connections, [self.process.pid])

    def completed(self) -> float:
        """Return the seconds until the queue has completed many requests. They count from the first one."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        headers = {"Authorization": f"Key {self.key}", "Content-Type": "application/json"}

        def answer(method: str, path: str, body: str | None = None) -> dict[str, str]:
            connection.request(method, f"/queue/local/measured{path}", body, headers)
            answered: dict[str, str] = json.loads(connection.getresponse().read())
            return answered

        began = time.perf_counter()
        accepted = [answer("POST", "/", "{}")["request_id"] for _ in range(_QUEUED)]
        for request_id in accepted:
            while answer("GET", f"/requests/{request_id}/status")["status"] != "COMPLETED":
                pass
        connection.close()
        return time.perf_counter() - began

    def lines(self) -> float:
        """Return the seconds until the last of many lines can be read."""
        began = time.perf_counter()
        self.call("measured/lines")
        runner = self.runner("measured")
        while f"line {_LINES - 1}" not in self.fal("runners", "logs", runner, "--lines", "5"):
            pass
        return time.perf_counter() - began


def _direct(connections: int, figure: str) -> Callable[[Version], float]:
    return lambda version: version.requests(connections)[figure]


def _queued(version: Version) -> float:
    accepted = version.requests(32, "/queue")["cpu_us"]
    version.fal("queue", "flush", "measured")
    return accepted


# Less is better in every row.
_FIGURES: dict[str, tuple[str, float, Callable[[Version], float]]] = {
    "fal --version": ("ms", 1e3, lambda version: version.command("--version")),
    "fal runners list --json": ("ms", 1e3, lambda version: version.command("runners", "list", "--json")),
    "fal deploy, environment built": ("ms", 1e3, Version.deploy),
    "fal runners exec ID -- true": (
        "ms",
        1e3,
        lambda version: version.command("runners", "exec", version.runner("measured"), "--", "true"),
    ),
    "fal secrets set": ("ms", 1e3, lambda version: version.command("secrets", "set", "NAME=value")),
    "cold start, first answer": ("ms", 1e3, Version.cold_start),
    "call, 1 connection, median": ("ms", 1, _direct(1, "p50_ms")),
    "call, 32 connections, median": ("ms", 1, _direct(32, "p50_ms")),
    "call, 32 connections, p99": ("ms", 1, _direct(32, "p99_ms")),
    "call, CPU of the controller": ("us", 1, _direct(32, "cpu_us")),
    f"{_LINES:,} lines printed and read": ("ms", 1e3, Version.lines),
    "request accepted in the queue, CPU": ("us", 1, _queued),
    f"{_QUEUED} requests accepted and completed": ("ms", 1e3, Version.completed),
    "kill -9 and start, until it answers": ("ms", 1e3, Version.start_again),
}


def _print_row(title: str, factor: float, taken: Sequence[Sequence[float]]) -> None:
    """Print the medians of each version. Print their ratios to the first one's figure of the same round, too."""
    before = taken[0]
    cells = f"{statistics.median(before) * factor:>10.3g}"
    for figures in taken[1:]:
        ratio = statistics.median(after / first for after, first in zip(figures, before, strict=True))
        cells += f"{statistics.median(figures) * factor:>10.3g}{ratio:>8.2f}"
    print(f"{title:38}{cells}", flush=True)


def main(arguments: Sequence[str]) -> int:
    """Measure, and print medians. Also print the median ratio to the other checkout's figure of the round."""
    other = Path(arguments[0]).resolve()
    chosen = {
        title: figure
        for title, figure in _FIGURES.items()
        if not arguments[1:] or any(part in title for part in arguments[1:])
    }
    taken: dict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as ends:
        versions: list[Version] = []
        for name, checkout, options in (
            ("before", other, ()),
            ("now", _HERE, ()),
            ("now, view", _HERE, ("--isolation", "view")),
        ):
            versions.append(Version(name, checkout, Path(folder) / name, *options))
            ends.callback(versions[-1].stop)
        print(f"{'':38}{'before':>10}{'now':>10}{'ratio':>8}{'view':>10}{'ratio':>8}")
        for title, (unit, factor, measure) in chosen.items():
            for round_number in range(_ROUNDS):
                for version in versions if round_number % 2 else reversed(versions):
                    taken[title, version.name].append(measure(version))
            _print_row(f"{title} {unit}", factor, [taken[title, version.name] for version in versions])
    print(f"load {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
