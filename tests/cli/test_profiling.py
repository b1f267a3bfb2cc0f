"""`fal runners profile`: the messages for runners that cannot be profiled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from fal_cli.commands.runners import profiling
from fal_cli.main import main
from fal_grpc.v1.runner_pb2 import ShellRunnerOutput

SPY = str(Path(sys.executable).with_name("py-spy"))


def take_all(requests):
    with suppress(grpc.RpcError):  # the client leaves when it has seen the end
        for _ in requests:
            pass


@pytest.fixture
def runner(controller):
    """Run the commands that are sent, with the test's variables."""
    variables = {"PATH": "/usr/bin:/bin"}

    def answer(requests, _context):
        first = next(requests)
        threading.Thread(target=take_all, args=(requests,), daemon=True).start()
        done = subprocess.run(list(first.command), env=variables, capture_output=True, check=False)
        yield ShellRunnerOutput(data=done.stdout, stream=1)
        yield ShellRunnerOutput(data=done.stderr, stream=2)
        yield ShellRunnerOutput(exit_code=done.returncode)

    controller.answers["ShellRunner"] = answer
    return variables


@pytest.mark.parametrize("flame", [False, True])
@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "runner r does not say which process its app is: it is in a container, or an older version"),
        ({"FAL_WORKER_PID": "1"}, "install the extra `profile` where its controller is installed"),
        ({"FAL_WORKER_PID": "1", "FAL_PY_SPY": "/nowhere/py-spy"}, "pip install 'fal-grpc[profile]'"),
        ({"FAL_WORKER_PID": "99999999", "FAL_PY_SPY": SPY}, "py-spy failed: "),
    ],
)
def test_what_is_missing_is_named(runner, variables, message, flame, tmp_path, capsys):
    runner.update(variables)
    file = tmp_path / "x.svg"
    assert main(["runners", "profile", "r", *(["--flame", str(file), "--seconds", "1"] if flame else [])]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Stack backtrace" not in error
    assert not file.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--seconds", "5"], 2, "--seconds is for --flame FILE.svg"),
        (["--idle"], 2, "--idle is for --flame FILE.svg"),
        (["--flame", "x.svg", "--json"], 2, "--output is for stacks"),
        (["--flame", "x.svg", "--seconds", "4000"], 2, "'4000' is not a number of seconds from 1 to 3600"),
        (["--flame", "/no/such/folder/x.svg"], 1, "cannot write /no/such/folder/x.svg"),
    ],
)
def test_nothing_is_sampled_in_vain(controller, arguments, code, message, capsys):
    assert main(["runners", "profile", "r", *arguments]) == code
    assert message in capsys.readouterr().err
    assert controller.asked == []


@pytest.mark.parametrize("flame", [False, True])
def test_a_kernel_that_lets_nobody_look_is_named_with_what_allows_it(runner, flame, tmp_path, capsys):
    spy = tmp_path / "py-spy"
    # What py-spy 0.4 writes, and its exit code, for a process of another user. `sudo !!` would repeat our own command.
    said = (
        """Permission Denied: Try running again with elevated permissions by going 'sudo env \\"PATH=\\$PATH\\" !!'"""
    )
    spy.write_text(f'#!/bin/sh\necho "{said}" >&2\nexit 1\n')
    spy.chmod(0o755)
    runner.update({"FAL_WORKER_PID": "1", "FAL_PY_SPY": str(spy)})
    more = ["--flame", str(tmp_path / "x.svg")] if flame else []
    assert main(["runners", "profile", "r", *more]) == 1
    error = capsys.readouterr().err
    assert "sysctl kernel.yama.ptrace_scope=1" in error
    assert "sudo" not in error


SLOW_SPY = """#!{python}
import pathlib, signal, sys, threading
ended = threading.Event()
print("Sampling", file=sys.stderr, flush=True)
open({gate!r}).readline()  # as long as a machine under load takes between the two
signal.signal(signal.SIGINT, lambda *_: ended.set())
while not ended.wait(0.01):
    pass
pathlib.Path(sys.argv[sys.argv.index("--output") + 1]).write_text("what there is")
"""


def run_flame(spy: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["sh", "-c", profiling.FLAME, "profile", *arguments],
        env={"PATH": "/usr/bin:/bin", "FAL_WORKER_PID": str(os.getpid()), "FAL_PY_SPY": str(spy)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )


def test_ctrl_c_before_py_spy_takes_it_still_draws_what_there_is(tmp_path):
    spy = tmp_path / "py-spy"
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    spy.write_text(SLOW_SPY.format(python=sys.executable, gate=str(gate)))
    spy.chmod(0o755)
    with run_flame(spy) as shell:
        assert shell.stderr is not None
        assert "Sampling" in shell.stderr.readline()
        os.killpg(shell.pid, signal.SIGINT)
        gate.write_text("go\n")
        drawn, _ = shell.communicate()
    assert (drawn, shell.returncode) == ("what there is", 0)


# What py-spy writes, and its exit code, if it took no sample; before that it waits for SIGINT if told to.
NO_SAMPLE_SPY = """#!{python}
import signal, sys, threading
ended = threading.Event()
signal.signal(signal.SIGINT, lambda *_: ended.set())
print("Sampling", file=sys.stderr, flush=True)
while {waits} and not ended.wait(0.01):
    pass
sys.exit("Error: Failed to write flamegraph: No stack counts found")
"""


def test_ctrl_c_before_the_first_sample_is_an_interrupt_and_not_a_failure(tmp_path):
    spy = tmp_path / "py-spy"
    spy.write_text(NO_SAMPLE_SPY.format(python=sys.executable, waits=True))
    spy.chmod(0o755)
    with run_flame(spy) as shell:
        assert shell.stderr is not None
        assert "Sampling" in shell.stderr.readline()
        os.killpg(shell.pid, signal.SIGINT)
        drawn, _ = shell.communicate()
    assert (drawn, shell.returncode) == ("", 92)


def test_a_picture_of_an_app_that_only_waited_says_which_option_counts_it(runner, tmp_path, capsys):
    spy = tmp_path / "py-spy"
    spy.write_text(NO_SAMPLE_SPY.format(python=sys.executable, waits=False))
    spy.chmod(0o755)
    runner.update({"FAL_WORKER_PID": "1", "FAL_PY_SPY": str(spy)})
    file = tmp_path / "x.svg"
    assert main(["runners", "profile", "r", "--flame", str(file), "--seconds", "1"]) == 1
    assert "the app only waited; --idle counts threads that wait" in capsys.readouterr().err
    assert not file.exists()


def test_an_interrupt_before_the_first_sample_ends_with_its_code(controller, tmp_path, capsys):
    controller.answers["ShellRunner"] = lambda _requests, _context: iter([ShellRunnerOutput(exit_code=92)])
    file = tmp_path / "x.svg"
    assert main(["runners", "profile", "r", "--flame", str(file)]) == 130
    assert "interrupted before anything was sampled" in capsys.readouterr().err
    assert not file.exists()
