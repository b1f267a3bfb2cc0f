"""`fal top`: its screen at any size, and its keys. It restores the terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fal.api import AliasInfo, RunnerInfo, RunnerState, RunnerUsage
from fal_cli.presentation.folding import display_width
from fal_cli.presentation.top import TopScreen
from fal_grpc.v1 import app_pb2, runner_pb2

NAMES = st.text(max_size=40)
USAGES = st.none() | st.builds(
    RunnerUsage,
    cpu_cores=st.floats(0, 9999),
    memory_bytes=st.integers(0, 2**50),
    gpu_memory_bytes=st.none() | st.integers(0, 2**50),
    gpu_cores=st.none() | st.floats(0, 64),
)
RUNNERS = st.builds(
    lambda number, alias, state, requests, seconds, usage: make_runner(
        f"{number:08x}-0000-4000-8000-000000000000", alias, state, requests, seconds, usage
    ),
    st.integers(0, 2**32 - 1),
    NAMES,
    st.sampled_from(RunnerState),
    st.integers(0, 10**6),
    st.floats(0, 10**8),
    USAGES,
)
APPS = st.builds(lambda name: make_app(name), NAMES)
KEYS = st.lists(
    st.sampled_from(
        ["up", "down", "page-down", "home", "end", "o", "r", "/", "z", "a", "enter", "escape", "x", "n", "?"]
    ),
    max_size=8,
)


def make_runner(
    runner_id: str, alias: str, state: RunnerState, requests: int, seconds: float, usage: RunnerUsage | None
) -> RunnerInfo:
    return RunnerInfo(
        runner_id=runner_id,
        in_flight_requests=requests,
        expiration_countdown=None,
        uptime=timedelta(seconds=seconds),
        external_metadata={},
        revision="r",
        alias=alias,
        state=state,
        machine_type="XS",
        usage=usage,
    )


def make_app(name: str) -> AliasInfo:
    return AliasInfo(
        alias=name,
        revision="r",
        auth_mode="public",
        keep_alive=0,
        max_concurrency=0,
        max_multiplexing=0,
        active_runners=0,
        min_concurrency=0,
        concurrency_buffer=0,
        concurrency_buffer_perc=0,
        scaling_delay=0,
        machine_types=[],
        request_timeout=0,
        startup_timeout=0,
        valid_regions=[],
    )


@given(st.lists(APPS, max_size=6), st.lists(RUNNERS, max_size=12), KEYS, st.integers(1, 60), st.integers(1, 130))
@settings(max_examples=60, deadline=None)
def test_the_screen_fits_any_terminal(apps, runners, keys, height, width) -> None:
    top = TopScreen("127.0.0.1:7400")
    top.apps, top.runners = apps, runners
    for key in keys:
        top.key(key)
        lines = top.lines(height, width, color=False)
        assert len(lines) <= height
        assert all(display_width(line) <= width for line in lines)


def test_keys_choose_a_runner_and_a_stop_is_asked_for() -> None:
    top = TopScreen("here")
    top.runners = [
        make_runner(f"{name}-id", name, RunnerState.IDLE, 0, 5, RunnerUsage(cpu_cores=cores, memory_bytes=1))
        for name, cores in (("a", 0.5), ("b", 2.0), ("c", 0.1))
    ]
    assert [runner.alias for runner in top.shown_runners()] == ["b", "a", "c"]
    assert top.key("down") is None
    assert top.key("l") == ("logs", "a-id")
    assert top.key("x") is None
    assert "Stop runner a-id?" in top.lines(24, 80, color=False)[-1]
    assert top.key("n") is None
    top.key("x")
    assert top.key("y") == ("stop", "a-id")
    for key in ("/", "c", "enter"):
        top.key(key)
    assert [runner.alias for runner in top.shown_runners()] == ["c"]
    assert top.key("s") == ("shell", "c-id")
    top.key("escape")
    top.key("r")
    assert [runner.alias for runner in top.shown_runners()] == ["c", "a", "b"]
    assert top.key("q") == ("quit", "")


@pytest.fixture
def watched(controller):
    def runners(_request, _context):
        yield runner_pb2.WatchRunnersResponse(snapshot=True, runners=[FOUND], version="1")
        controller.gone.wait(60)

    def apps(_request, _context):
        yield app_pb2.WatchAppsResponse(snapshot=True, apps=[app_pb2.AliasInfo(alias="shop")], version="1")
        controller.gone.wait(60)

    controller.answers["ListRunners"] = runner_pb2.ListRunnersResponse(runners=[FOUND])
    controller.answers["ListAliases"] = app_pb2.ListAliasesResult(aliases=[app_pb2.AliasInfo(alias="shop")])
    controller.answers["WatchRunners"], controller.answers["WatchApps"] = runners, apps
    controller.answers["StopRunner"] = runner_pb2.StopRunnerResponse()
    return controller


FOUND = runner_pb2.RunnerInfo(runner_id="83dd5028-24bc-4895-9c1a-0d6f4a4e1b7d", alias="shop")


class Terminal:
    """Run `fal top` on a new terminal."""

    def __init__(self) -> None:
        self.own, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        self.before = termios.tcgetattr(theirs)
        environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fal_cli", "top"], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        )
        self.theirs = theirs
        self.shown = b""

    def until(self, text: bytes) -> None:
        while text not in self.shown:
            ready, _, _ = select.select([self.own], [], [], 20)
            assert ready, self.shown
            self.shown += os.read(self.own, 65536)

    def end(self) -> int:
        """Return the exit code. The terminal is as before, on its usual screen and with a cursor."""
        code = self.process.wait(60)
        self.until(b"\x1b[?25h\x1b[?1049l")
        after = termios.tcgetattr(self.theirs)
        os.close(self.own)
        os.close(self.theirs)
        assert after == self.before
        return code


def test_the_terminal_is_given_back(watched) -> None:
    terminal = Terminal()
    terminal.until(b"83dd5028  shop")
    os.write(terminal.own, b"xy")
    terminal.until(b"is stopping.")
    assert watched.request("StopRunner").runner_id == FOUND.runner_id
    os.write(terminal.own, b"q")
    assert terminal.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_gives_the_terminal_back(watched, number) -> None:
    terminal = Terminal()
    terminal.until(b"83dd5028  shop")
    terminal.process.send_signal(number)
    assert terminal.end() == 128 + number


def test_a_pipe_gets_it_once(watched) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fal_cli", "top"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[0] == "1 app, 1 runner, 0 requests"
    assert FOUND.runner_id in done.stdout
