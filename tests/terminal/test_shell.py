"""`fal runners shell` in a real terminal, tmux. Its keys and screen are used."""

from __future__ import annotations

import hashlib
import secrets
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path

import psutil
import pytest

from tests.support.controller import BIN
from tests.support.place import Place, entered
from tests.support.waiting import until


class Screen:
    """Drive a terminal of 30 rows and 100 columns. It has a local shell."""

    def __init__(self, place: Place, directory: Path) -> None:
        self._socket = f"fal-{secrets.token_hex(4)}"
        self.place = place
        self.directory = directory
        self.tmux("new-session", "-d", "-x", "100", "-y", "30", "env PS1='local> ' bash --norc --noprofile")
        self.wait_for("local>")
        self.run("stty -g > before", "local>")

    def tmux(self, *arguments: str, stdin: bytes | None = None) -> str:
        done = subprocess.run(
            ["tmux", "-L", self._socket, "-f", "/dev/null", *arguments],
            env={**self.place.controller.environment, "TERM": "xterm-256color"},
            cwd=self.directory,
            input=stdin,
            capture_output=True,
            check=True,
            timeout=60,
        )
        return done.stdout.decode()

    def keys(self, *keys: str) -> None:
        """Press keys by their tmux names, such as C-c or Enter."""
        self.tmux("send-keys", *keys)

    def type(self, text: str) -> None:
        """Type text literally."""
        self.tmux("send-keys", "-l", text)

    def shown(self, *options: str) -> str:
        return self.tmux("capture-pane", "-p", *options)

    def wait_for(self, text: str) -> str:
        try:
            return until(lambda: shown if text in (shown := self.shown("-J")) else "", f"{text!r} on the screen")
        except AssertionError as error:
            raise AssertionError(f"{error}:\n{self.shown()}") from None

    def run(self, command: str, expected: str) -> str:
        """Type a command on a cleared screen, and wait for its output."""
        self.type(f"clear; {command}")
        self.keys("Enter")
        return self.wait_for(expected)

    def shell(self) -> None:
        """Open a shell in the runner."""
        self.type(f"clear; {BIN / 'fal'} runners shell {self.place.runner_id}; echo code=$?")
        self.keys("Enter")
        self.wait_for(f"[entered {self.place.runner_id[:8]}]")

    def is_restored(self) -> None:
        """Assert that the terminal's settings are as before."""
        self.run("stty -g | diff - before && echo the-$((40 + 2))-same", "the-42-same")

    def prompt(self, *signs: str) -> None:
        """Wait for the prompt. An ending program may still read typed keys."""
        until(lambda: self.shown().rstrip().endswith(signs or ("#", "$")), "the prompt is back")

    def fal(self) -> psutil.Process:
        """Return the pid of `fal` in the terminal."""
        pane = int(self.tmux("display-message", "-p", "#{pane_pid}"))
        (found,) = psutil.Process(pane).children(recursive=True)
        return found

    def close(self) -> None:
        self.tmux("kill-server")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Generator[Place]:
    with entered(tmp_path_factory.mktemp("shell")) as place:
        yield place


@pytest.fixture
def screen(place: Place, tmp_path: Path) -> Generator[Screen]:
    screen = Screen(place, tmp_path)
    yield screen
    screen.close()


def test_prompt_size_resize_exit_code_and_restoring(screen: Screen) -> None:
    screen.shell()
    screen.run("stty size", "30 100")
    screen.tmux("resize-window", "-x", "120", "-y", "40")
    until(lambda: screen.run("stty size", "0") and "40 120" in screen.shown(), "the new size arrives")
    screen.type("exit 7")
    screen.keys("Enter")
    screen.wait_for("code=7")
    screen.is_restored()


def test_full_screen_programs(screen: Screen, tmp_path: Path) -> None:
    screen.shell()
    screen.run("rm -f note; vi note", "~")
    screen.keys("i")
    screen.type("héllo 日本")
    screen.keys("Escape")
    screen.wait_for("héllo 日本")
    screen.type(":wq")
    screen.keys("Enter")
    screen.prompt()
    screen.run("cat note; echo was-$((1 + 1))", "was-2")
    assert "héllo 日本" in screen.shown()
    screen.run("seq 1000 2000 | less", "1005")
    screen.keys("G")
    screen.wait_for("2000")
    screen.keys("q")
    screen.prompt()
    screen.run("top", "%Cpu")
    screen.keys("q")
    screen.prompt()
    screen.run("echo back-$((1 + 1))", "back-2")


def test_a_python_prompt_with_its_history_and_ctrl_c_and_ctrl_d(screen: Screen) -> None:
    screen.shell()
    screen.run("python -q", ">>>")
    screen.type("print('a' + 'é' * 3)")
    screen.keys("Enter")
    screen.wait_for("\naééé")
    screen.keys("Up", "C-a")
    screen.type("x = 5; ")
    screen.keys("Enter")
    screen.wait_for("x = 5; print")
    screen.type("import signal; signal.pause()")
    screen.keys("Enter")
    screen.keys("C-c")
    screen.wait_for("KeyboardInterrupt")
    screen.prompt(">>>")
    screen.keys("C-d")
    screen.prompt()
    screen.run("echo left-$((1 + 1))", "left-2")


def test_ctrl_c_ctrl_z_and_ctrl_d(screen: Screen) -> None:
    screen.shell()
    screen.run("sh -c 'echo sleeps-$((1 + 1)); exec sleep 1000'", "sleeps-2")
    screen.keys("C-c")
    screen.prompt()
    screen.type("echo interrupted=$?")  # without `clear`, which would set its own exit code
    screen.keys("Enter")
    screen.wait_for("interrupted=130")
    screen.run("sh -c 'echo sleeps-$((1 + 2)); exec sleep 1000'", "sleeps-3")  # not earlier output on the screen
    screen.keys("C-z")
    screen.wait_for("Stopped")
    screen.prompt()
    screen.run("kill -9 %1; wait -f %1; echo killed-$((1 + 1))", "killed-2")
    screen.keys("C-d")
    screen.wait_for("code=")
    screen.is_restored()


def test_colors(screen: Screen) -> None:
    screen.shell()
    screen.run(r"printf '\033[38;5;196mred\033[48;5;21mblue\033[0m\n'", "redblue")
    colored = screen.shown("-e")
    assert "38;5;196" in colored
    assert "48;5;21" in colored


def test_a_paste_of_100_kb(screen: Screen, tmp_path: Path) -> None:
    screen.shell()
    text = "".join(f"{number:05} {hashlib.sha256(str(number).encode()).hexdigest()} é\n" for number in range(1400))
    assert len(text.encode()) > 100_000
    screen.run("stty -echo; echo ready-$((1 + 1)); cat > pasted; stty echo", "ready-2")
    screen.tmux("load-buffer", "-", stdin=text.encode())
    screen.tmux("paste-buffer", "-d")
    screen.keys("C-d")
    screen.run("sha256sum pasted", hashlib.sha256(text.encode()).hexdigest())


def test_it_survives_the_controller(screen: Screen) -> None:
    screen.shell()
    screen.run("here=still; echo set-$((1 + 1))", "set-2")
    screen.place.crash()
    screen.wait_for("reconnected to command")
    screen.keys("Enter")
    screen.run("echo $here-here", "still-here")
    screen.type("exit 3")
    screen.keys("Enter")
    screen.wait_for("code=3")
    screen.is_restored()


def by_a_signal(screen: Screen) -> str:
    screen.fal().terminate()
    return "code=143"


def by_an_error(screen: Screen) -> str:
    """Attach another client to the command, which ends this one."""
    with screen.place.sdk() as sdk:
        mine = next(found for found in sdk.runners.execs() if found.attached and found.tty)
        session = sdk.runners.attach(mine.exec_id)
        next(iter(session))
        session.hang_up()
    return "code=1"


@pytest.mark.parametrize("end", [by_a_signal, by_an_error])
def test_the_terminal_is_restored_when_it_ends_by(screen: Screen, end: Callable[[Screen], str]) -> None:
    screen.shell()
    screen.wait_for(end(screen))
    screen.is_restored()
