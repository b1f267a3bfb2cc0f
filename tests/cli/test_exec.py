"""`fal runners exec` and `fal runners shell`, with and without a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios

import grpc
import pytest

from fal_grpc.v1.runner_pb2 import ShellRunnerOutput

FAL = [sys.executable, "-m", "fal_cli"]


class Session:
    """A fake controller, which records requests and acts as the command."""

    def __init__(self) -> None:
        self.first = None
        self.data = b""
        self.sizes = []
        self.closed = False


@pytest.fixture
def echo(controller):
    """Run a command that echoes its input and exits with 7. It echoes in upper case on stderr."""
    session = Session()

    def answer(requests, _context):
        session.first = next(requests)
        for request in requests:
            session.data += request.data
            if request.close:
                session.closed = True
                break
        yield ShellRunnerOutput(data=session.data, stream=1)
        yield ShellRunnerOutput(data=session.data.upper(), stream=2)
        yield ShellRunnerOutput(exit_code=7)

    controller.answers["ShellRunner"] = answer
    return session


def fal(*arguments, **given):
    return subprocess.run([*FAL, *arguments], capture_output=True, check=False, timeout=60, **given)


@pytest.mark.parametrize(
    ("arguments", "command", "tty"),
    [
        (["ID", "--", "ls", "-l"], ["ls", "-l"], False),
        (["ID", "ls"], ["ls"], False),
        (["ID", "--", "sh", "-c", "x", "--", "y"], ["sh", "-c", "x", "--", "y"], False),
        (["ID", "-it", "--", "python"], ["python"], False),
        (["-it", "ID", "--", "python", "-it"], ["python", "-it"], False),
        (["ID", "--interactive", "--", "--help"], ["--help"], False),
    ],
)
def test_the_command_is_sent_unchanged(echo, arguments, command, tty):
    done = fal("runners", "exec", *arguments, stdin=subprocess.DEVNULL)
    assert done.returncode == 7
    assert echo.first.runner_id == "ID"
    assert list(echo.first.command) == command
    assert echo.first.tty is tty
    assert echo.closed


def test_input_output_and_errors_are_bytes_and_apart(echo):
    data = bytes(range(256)) * 4096
    done = fal("runners", "exec", "ID", "--", "cat", input=data)
    assert done.returncode == 7
    assert done.stdout == data
    assert done.stderr == data.upper()


def test_a_file_can_be_the_input(echo, tmp_path):
    path = tmp_path / "input"
    path.write_bytes(b"from a file")
    with path.open("rb") as file:
        assert fal("runners", "exec", "ID", "--", "cat", stdin=file).stdout == b"from a file"


def test_it_without_a_terminal_says_so_and_goes_on(echo):
    done = fal("runners", "exec", "-it", "ID", "--", "cat", input=b"x")
    assert done.returncode == 7
    assert b"not a terminal" in done.stderr
    assert echo.first.tty is False


def test_a_script_can_be_the_input_of_a_shell(echo):
    done = fal("runners", "shell", "ID", input=b"ls\n")
    assert done.returncode == 7
    assert list(echo.first.command) == []
    assert echo.first.tty is False
    assert echo.data == b"ls\n"


def test_a_broken_link_has_a_code_of_its_own(controller):
    def answer(requests, context):
        next(requests)
        yield ShellRunnerOutput(data=b"so far")
        context.abort(grpc.StatusCode.UNAVAILABLE, "the shim is gone")

    controller.answers["ShellRunner"] = answer
    done = fal("runners", "exec", "ID", "--", "cat", stdin=subprocess.DEVNULL)
    assert done.returncode == 254
    assert done.stdout == b"so far"
    assert b"Error: " in done.stderr
    assert b"the shim is gone" in done.stderr


def test_an_end_without_an_exit_code_is_a_broken_link(controller):
    def answer(requests, _context):
        next(requests)
        yield ShellRunnerOutput(close=True)

    controller.answers["ShellRunner"] = answer
    assert fal("runners", "exec", "ID", "--", "cat", stdin=subprocess.DEVNULL).returncode == 254


def test_a_refusal_is_code_1(controller):
    controller.answers["ShellRunner"] = (grpc.StatusCode.NOT_FOUND, "runner 'ID' not found")
    done = fal("runners", "exec", "ID", "--", "cat", stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert b"runner 'ID' not found" in done.stderr


@pytest.mark.parametrize("tail", [["logs", "-f", "r-1"], ["exec", "r-1", "--", "cat"]])
def test_ctrl_c_is_quiet_and_code_130(controller, tail):
    def answer(request, context):
        if tail[0] == "exec":
            next(request)
        yield from []
        controller.reached.set()
        controller.gone.wait(60)

    controller.answers["FollowLogs"] = controller.answers["ShellRunner"] = answer
    process = subprocess.Popen(
        [*FAL, "runners", *tail], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert controller.reached.wait(60)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, b"", b"")
    assert controller.gone.wait(60), "the call was cancelled"


def test_a_reader_that_goes_away_is_no_error(controller):
    def answer(requests, context):
        next(requests)
        while context.is_active():
            yield ShellRunnerOutput(data=b"y\n" * 1000)

    controller.answers["ShellRunner"] = answer
    process = subprocess.Popen(
        [*FAL, "runners", "exec", "r", "--", "yes"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.read(10) == b"y\n" * 5
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 141


class Terminal:
    """Run `fal` on a pseudo-terminal."""

    def __init__(self, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        self.resize(30, 100)
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            [*FAL, *arguments], stdin=slave, stdout=slave, stderr=slave, start_new_session=True, preexec_fn=_control
        )
        self._slave = slave
        self.shown = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def read_until(self, text: bytes) -> bytes:
        while text not in self.shown:
            assert select.select([self.master], [], [], 60)[0], f"no {text!r} in {self.shown!r}"
            self.shown += os.read(self.master, 65536)
        return self.shown

    def wait(self) -> int:
        return self.process.wait(60)

    def restored(self) -> bool:
        return termios.tcgetattr(self._slave) == self.before

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self._slave)


def _control() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal():
    opened = []

    def open_terminal(*arguments):
        opened.append(Terminal(*arguments))
        return opened[-1]

    yield open_terminal
    for one in opened:
        one.close()


@pytest.fixture
def keys(controller):
    """Run a command that shows keys as numbers and the window's size. It exits with 5 at a `q`."""
    session = Session()

    def answer(requests, _context):
        session.first = next(requests)
        yield ShellRunnerOutput(data=b"ready ")
        for request in requests:
            if request.HasField("tty_size"):
                yield ShellRunnerOutput(data=f"<{request.tty_size.height}x{request.tty_size.width}>".encode())
            for key in request.data:
                yield ShellRunnerOutput(data=f"[{key}]".encode())
                if key == ord("q"):
                    yield ShellRunnerOutput(exit_code=5)
                    return

    controller.answers["ShellRunner"] = answer
    return session


@pytest.mark.parametrize("arguments", [["shell", "ID"], ["exec", "ID", "-it", "--", "top"]])
def test_on_a_terminal_every_key_is_sent_and_the_terminal_is_restored(keys, terminal, arguments):
    one = terminal("runners", *arguments)
    one.read_until(b"<30x100>")
    assert keys.first.tty
    one.type(b"a\x03\x1a\r")
    one.read_until(b"[97][3][26][13]")
    one.resize(50, 120)
    one.read_until(b"<50x120>")
    one.type(b"q")
    assert one.wait() == 5
    assert one.restored()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_restores_the_terminal(keys, terminal, number):
    one = terminal("runners", "shell", "ID")
    one.read_until(b"<30x100>")
    assert not one.restored()
    one.process.send_signal(number)
    assert one.wait() == 128 + number
    assert one.restored()


def test_a_refusal_restores_the_terminal(controller, terminal):
    controller.answers["ShellRunner"] = (grpc.StatusCode.NOT_FOUND, "runner 'ID' not found")
    one = terminal("runners", "shell", "ID")
    assert one.wait() == 1
    assert b"Error:" in one.read_until(b"not found")
    assert one.restored()


def test_without_it_a_terminal_is_not_read(echo, terminal):
    one = terminal("runners", "exec", "ID", "--", "cat")
    one.type(b"for the next command\n")
    assert one.wait() == 7
    assert echo.data == b""
    assert echo.first.tty is False
