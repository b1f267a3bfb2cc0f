"""`fal runners profile` against a real runner: stacks, and a flame graph."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from fal_cli.exit_codes import ExitCode
from tests.support.controller import BIN, Controller

# The app prints before it is busy, so that a test knows when to profile.
APP = """
import subprocess
import sys
import time

import fal


class Busy(fal.App, name="busy", keep_alive=300):
    app_auth = "public"
    machine_type = "XS"

    @fal.endpoint("/")
    def spin(self) -> str:
        child = subprocess.Popen([sys.executable, "-c", "def waits_in_the_child():\\n  input()\\nwaits_in_the_child()"],
                                 stdin=subprocess.PIPE)
        print("spinning", flush=True)
        self.burn_the_processor()
        child.communicate()
        return "done"

    def burn_the_processor(self) -> None:
        while not self.released:
            pass

    def setup(self) -> None:
        self.released = False

    @fal.endpoint("/release")
    def release(self) -> str:
        self.released = True
        return "released"
"""


@pytest.fixture(scope="module")
def runner_id(controller: Controller, tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    file = tmp_path_factory.mktemp("profiled") / "busy.py"
    file.write_text(APP)
    controller.fal("deploy", str(file))
    controller.fal("apps", "scale", "busy", "--max-multiplexing", "2")
    call = threading.Thread(target=controller.call, args=("/local/busy", {}))
    call.start()
    followed = [str(BIN / "fal"), "apps", "logs", "busy", "-f"]
    with subprocess.Popen(followed, env=controller.environment, stdout=subprocess.PIPE, text=True) as logs:
        assert logs.stdout is not None
        assert any("spinning" in line for line in logs.stdout)
        logs.terminate()
        logs.stdout.read()
    (runner,) = json.loads(controller.fal("apps", "runners", "busy", "--json").stdout)["runners"]
    yield runner["runner_id"]
    assert controller.call("/local/busy/release", {}).status == 200
    call.join()
    controller.fal("apps", "delete", "busy")


def test_the_stack_names_the_function_that_runs(controller: Controller, runner_id: str) -> None:
    shown = controller.fal("runners", "profile", runner_id).stdout
    assert "burn_the_processor" in shown
    assert "waits_in_the_child" not in shown
    assert "waits_in_the_child" in controller.fal("runners", "profile", runner_id, "--subprocesses").stdout
    threads = json.loads(controller.fal("runners", "profile", runner_id[:8], "--subprocesses", "--json").stdout)
    frames = [frame["name"] for thread in threads["threads"] for frame in thread["frames"]]
    assert "waits_in_the_child" in frames
    assert any(name.endswith("burn_the_processor") for name in frames)


def test_a_flame_graph_shows_where_the_time_goes(controller: Controller, runner_id: str, tmp_path: Path) -> None:
    file = tmp_path / "busy.svg"
    done = controller.fal("runners", "profile", runner_id, "--flame", str(file), "--seconds", "1")
    assert done.stdout == ""
    assert f"Wrote {file}." in done.stderr
    svg = file.read_text()
    assert svg.startswith("<?xml")
    assert "burn_the_processor" in svg


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_ctrl_c_draws_what_there_is_and_other_signals_leave_nothing(
    controller: Controller, runner_id: str, number: int, code: int, tmp_path: Path
) -> None:
    file = tmp_path / "busy.svg"
    ended = _signaled(controller, runner_id, file, number)
    # Ctrl-C before the first sample leaves nothing, too.
    while code == 0 and ended == ExitCode.INTERRUPTED:
        assert not file.exists()
        ended = _signaled(controller, runner_id, file, number)
    assert ended == code
    assert file.exists() == (code == 0)


def _signaled(controller: Controller, runner_id: str, file: Path, number: int) -> int:
    """Start a long sampling and return the exit code. Send the signal once py-spy samples."""
    command = [str(BIN / "fal"), "runners", "profile", runner_id, "--flame", str(file), "--seconds", "600"]
    with subprocess.Popen(command, env=controller.environment, stderr=subprocess.PIPE, text=True) as process:
        _until_sampled(controller, runner_id)
        process.send_signal(number)
        process.communicate()
    while _running(controller, runner_id):
        pass
    return process.returncode


def _until_sampled(controller: Controller, runner_id: str) -> None:
    """Wait until py-spy reports that it samples."""
    while not any(found["output_bytes"] for found in _running(controller, runner_id)):
        pass


def _running(controller: Controller, runner_id: str) -> list[dict[str, object]]:
    execs = json.loads(controller.fal("runners", "execs", runner_id, "--json").stdout)["execs"]
    return [found for found in execs if found["exit_code"] is None]
