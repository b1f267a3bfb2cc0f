"""If an ending worker is killed, its own exit code is reported."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fal_runner.process.proc import all_processes, children_of
from fal_runner.process.subreaper import Child, Subreaper
from tests.support.waiting import until

# The process that stands for a program in a sandbox: it ends as the program does, but here only on command.
STANDS_FOR = """
import os, signal, sys
from fal_runner.isolation.confinement import end_as
program = os.fork()
if program == 0:
    os.setsid()
    print(os.getpid(), flush=True)
    {program}
sys.stdin.readline()
end_as(os.waitpid(program, 0)[1])
"""


@contextmanager
def standing_for(program: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start a process that stands for a program. Yield it with the program's process id."""
    source = STANDS_FOR.format(program=program)
    with subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())


def state_of(pid: int) -> str:
    return next(found.state for found in all_processes() if found.pid == pid)


def kill_program_of(process: subprocess.Popen[bytes]) -> None:
    with asyncio.Runner() as runner:
        Subreaper().kill_program(Child(process, runner.get_loop().create_future()))


@pytest.mark.parametrize(("program", "code"), [("os._exit(3)", 3), ("signal.pause()", -signal.SIGKILL)])
def test_a_program_that_has_ended_keeps_its_exit_code(program: str, code: int) -> None:
    with standing_for(program) as (process, pid):
        if code >= 0:
            until(lambda: state_of(pid) == "Z", "the program has ended")
        kill_program_of(process)
        process.communicate(b"look\n")
    assert process.returncode == code


def test_without_a_program_the_child_itself_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as process:
        kill_program_of(process)
    assert process.returncode == -signal.SIGKILL


def test_the_children_of_each_thread_are_found_and_no_grandchildren() -> None:
    with standing_for("signal.pause()") as (process, pid):
        assert [found.pid for found in children_of(process.pid)] == [pid]
        assert process.pid in {found.pid for found in children_of(os.getpid())}
        assert pid not in {found.pid for found in children_of(os.getpid())}
        started, end = threading.Event(), threading.Event()
        of_thread: list[int] = []

        def start_another() -> None:
            with standing_for("signal.pause()") as (another, program):
                of_thread.append(another.pid)
                started.set()
                end.wait()
                os.kill(program, signal.SIGKILL)
                another.communicate(b"look\n")

        thread = threading.Thread(target=start_another)
        thread.start()
        started.wait()
        found = {child.pid for child in children_of(os.getpid())}
        end.set()
        thread.join()
        assert {process.pid, *of_thread} <= found
        os.kill(pid, signal.SIGKILL)
        process.communicate(b"look\n")
    assert children_of(process.pid) == []
