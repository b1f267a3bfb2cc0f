"""SIGINT, SIGTERM and SIGHUP come at any time of a command. The exit code is right, with no traceback and nothing left.

FAL_SIGNAL_TIMES is the number of times in each command's life at which each signal is sent. Without it there are 6 for
each command, with alternating signals. The times are spread over the steps of the main thread, not over seconds.
"""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from fal.api import SyncServerlessClient
from fal_cli.controller_process import find_controller
from tests.support.controller import ROOT
from tests.support.place import Place, entered
from tests.support.waiting import until

pytestmark = pytest.mark.slow

TIMES = int(os.environ.get("FAL_SIGNAL_TIMES") or 0)
SHORT = 6
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INJECTOR = Path(__file__).with_name("injector.py")
FUNCTION = """
import fal, threading

@fal.function(machine_type="XS")
def waits():
    print("it runs", flush=True)
    threading.Event().wait()
"""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A long command.

    Attributes:
        arguments: the arguments of `fal`; {runner} and {mark} are replaced.
        ready: its output once it only waits; None if it ends by itself.
        gone: whether all that it started has ended; called until it is true.
        tty: whether it gets a terminal.
        orderly: its output after a proper stop, with exit code 0.
    """

    arguments: tuple[str, ...]
    ready: bytes | None = None
    gone: Callable[[Place, str], bool] = field(default=lambda _place, _mark: True)
    tty: bool = False
    orderly: bytes | None = None


def no_process(_place: Place, mark: str) -> bool:
    """Return whether no process has the mark in its arguments. The tests' own do not count."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if mark in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                return False
    return True


def no_exec(place: Place, _mark: str) -> bool:
    with SyncServerlessClient(host=place.controller.host, api_key=place.controller.key) as client:
        return not [found for found in client.runners.execs(place.runner_id) if found.exit_code is None]


def no_request(place: Place, _mark: str) -> bool:
    listed = place.fal("queue", "list", "calls", "--json").stdout
    return all(request["state"] not in ("IN_QUEUE", "IN_PROGRESS") for request in json.loads(listed)["requests"])


def no_run(place: Place, _mark: str) -> bool:
    with SyncServerlessClient(host=place.controller.host, api_key=place.controller.key) as client:
        return all(runner.alias in ("entered", "calls", "deployed") for runner in client.runners.list())


def no_controller(_place: Place, mark: str) -> bool:
    return find_controller(Path(mark)) is None and no_process(_place, mark)


COMMANDS = {
    "exec": Command(
        arguments=("runners", "exec", "{runner}", "--", "sh", "-c", "echo ready; exec sleep 5000 #{mark}"),
        ready=b"ready",
        gone=lambda place, mark: no_process(place, mark) and no_exec(place, mark),
    ),
    "short exec": Command(arguments=("runners", "exec", "{runner}", "--", "true"), gone=no_exec),
    "shell": Command(arguments=("runners", "shell", "{runner}"), ready=b"[entered ", gone=no_exec, tty=True),
    "logs": Command(arguments=("apps", "logs", "entered", "--follow", "--since", "1h"), ready=b"worker started"),
    "deploy": Command(arguments=("deploy", "{folder}/deployed.py", "--app-name", "deployed")),
    "run": Command(arguments=("run", "{folder}/function.py::waits"), ready=b"it runs", gone=no_run),
    "api": Command(
        arguments=("api", "local/calls/wait", "started={mark}", "gone={mark}"), ready=b"In progress", gone=no_request
    ),
    "watch": Command(arguments=("runners", "list", "--watch", "0.1"), ready=b"entered", tty=True),
    "up": Command(
        arguments=("up", "--port", "0", "--state-dir", "{mark}"),
        ready=b"The controller is up",
        gone=no_controller,
        orderly=b"stopping in order",
    ),
    "up -d": Command(
        arguments=("up", "-d", "--port", "0", "--state-dir", "{mark}"),
        ready=b"The controller is up",
        gone=no_controller,
    ),
    "node up": Command(
        arguments=("node", "up", "--port", "0", "--node-dir", "{mark}"),
        ready=b"token: ",
        gone=no_process,
        orderly=b"stopping in order",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a command ended.

    Attributes:
        report: the injector's report.
    """

    code: int
    output: bytes
    report: str
    restored: bool


class Runs:
    """Run a command repeatedly, each time in a new folder."""

    def __init__(self, place: Place, command: Command, folder: Path) -> None:
        self.place = place
        self.command = command
        self.folder = folder
        self.number = 0
        (folder / "function.py").write_text(FUNCTION)
        (folder / "deployed.py").write_text((ROOT / "examples/hello.py").read_text())

    def mark(self) -> str:
        return str(self.folder / f"m{self.number}")

    def run(self, step: int, number: signal.Signals) -> Outcome:
        """Run it, and send the signal at a step. If the command only waits, send it from outside."""
        self.number += 1
        report = self.folder / f"report{self.number}"
        places = {"runner": self.place.runner_id, "mark": self.mark(), "folder": str(self.folder)}
        arguments = [argument.format(**places) for argument in self.command.arguments]
        ours, theirs = pty.openpty() if self.command.tty else (-1, -1)
        before = termios.tcgetattr(theirs) if self.command.tty else None
        reading, writing = os.pipe()
        with subprocess.Popen(
            [sys.executable, str(INJECTOR), str(report), str(step), str(int(number)), *arguments],
            env=self.place.controller.environment | {"TERM": "xterm", "UV_CACHE_DIR": str(ROOT / ".cache" / "uv")},
            stdin=theirs if self.command.tty else subprocess.DEVNULL,
            stdout=theirs if self.command.tty else writing,
            stderr=theirs if self.command.tty else writing,
            start_new_session=True,
        ) as process:
            os.close(writing)
            output = self._watch(process, ours if self.command.tty else reading, number)
        os.close(reading)
        after = termios.tcgetattr(theirs) if self.command.tty else None
        for handle in (ours, theirs) if self.command.tty else ():
            os.close(handle)
        return Outcome(
            code=process.returncode,
            output=output,
            report=report.read_text() if report.exists() else "",
            restored=before == after,
        )

    def _watch(self, process: subprocess.Popen[bytes], source: int, number: signal.Signals) -> bytes:
        """Read the output to the end of the process. Send the signal when it is ready."""
        output = b""
        handle = os.pidfd_open(process.pid)
        sent = self.command.ready is None
        try:
            while True:
                readable = select.select([source, handle], [], [], 120)[0]
                assert readable, f"it hangs after {output.decode(errors='replace')}"
                if source in readable:
                    with suppress(OSError):  # the terminal's other side was closed
                        piece = os.read(source, 65536)
                        output += piece
                        if not piece and handle not in readable:
                            process.wait(60)
                if not sent and self.command.ready is not None and self.command.ready in output:
                    sent = True
                    process.send_signal(number)
                if handle in readable and source not in readable:
                    return output
                if handle in readable:
                    with suppress(OSError):
                        while select.select([source], [], [], 0)[0] and (piece := os.read(source, 65536)):
                            output += piece
                    return output
        finally:
            os.close(handle)
            if process.poll() is None:
                process.kill()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Generator[Place]:
    with entered(tmp_path_factory.mktemp("state")) as found:
        found.controller.fal("deploy", str(ROOT / "tests/support/api_app.py"), "--app-name", "calls")
        yield found


@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_at_any_time(place: Place, name: str, tmp_path: Path) -> None:
    command = COMMANDS[name]
    runs = Runs(place, command, tmp_path)
    counted = runs.run(0, signal.SIGTERM)
    steps = int(counted.report)
    assert steps > 1000, counted
    if name == "up -d":
        place.fal("down", "--now", "--state-dir", runs.mark())
    times = TIMES or SHORT
    chosen = [1 + steps * index // times for index in range(times)]
    cases = [
        (step, number)
        for index, step in enumerate(chosen)
        for number in (SIGNALS if TIMES else [SIGNALS[index % len(SIGNALS)]])
    ]
    faults = [fault for step, number in cases for fault in faults_of(runs, command, step, number)]
    assert faults == [], "\n\n".join(faults)


def faults_of(runs: Runs, command: Command, step: int, number: signal.Signals) -> list[str]:
    """Run it once; return its faults."""
    where = f"{number.name} at step {step}"
    try:
        outcome = runs.run(step, number)
    except AssertionError as error:
        return [f"{where}: {error}"]
    shown = outcome.output.decode(errors="replace")
    found = []
    sent = outcome.report == "fired" or command.ready is not None
    orderly = command.orderly is not None and command.orderly in outcome.output
    expected = 128 + number if sent and not orderly else 0
    if outcome.code != expected:
        found.append(f"{where}: exit code {outcome.code}, not {expected}: {shown}")
    if "Traceback" in shown or "Exception ignored" in shown:
        found.append(f"{where}: {shown}")
    if not outcome.restored:
        found.append(f"{where}: the terminal is not as before")
    try:
        until(lambda: command.gone(runs.place, runs.mark()), "what it started has ended")
    except AssertionError as error:
        found.append(f"{where}: {error}: {shown}")
    return found
