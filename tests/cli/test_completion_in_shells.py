"""TAB in real shells: commands, flags, names and ids."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Generator
from pathlib import Path

import pytest

from fal.config import edit
from fal_grpc.v1 import app_pb2, runner_pb2
from tests.support.commands import all_commands

STARTS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(fal completion bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'autoload -U compinit; compinit -u -D; eval "$(fal completion zsh)"'),
    "fish": (["fish", "--no-config", "-i"], "fal completion fish | source"),
}
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-9;?>=]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\\\)|[()][A-Z0-9]|[=>]|P[^\x1b]*\x1b\\\\)"
)
# fish queries the terminal before it takes input.
_ANSWERS = {b"\x1b[c": b"\x1b[?62;22c", b"\x1b[0c": b"\x1b[?62;22c", b"\x1b[6n": b"\x1b[1;1R"}


class Shell:
    """An interactive shell on a terminal of 200 columns."""

    def __init__(self, name: str, home: Path) -> None:
        if not any(Path(folder, name).exists() for folder in os.environ["PATH"].split(":")):
            pytest.fail(f"{name} is not installed: .ci/run names the packages that the tests need")
        command, setup = STARTS[name]
        self._terminal, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._process = subprocess.Popen(
            ["setsid", "--ctty", *command],  # the terminal turns Ctrl-C into a signal
            env={**os.environ, "PATH": path, "TERM": "xterm", "HOME": str(home), "FAL_COMPLETION_SECONDS": "600"},
            cwd=home,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self._write(f"{setup}; echo rea''dy\r")
        self.read_until(lambda text: "ready" in text)

    def tab(self, line: str, expected: str) -> None:
        """Type the beginning of a line and TAB. Wait for the completion, then clear the line."""
        self._write(line + "\t")
        words = expected.split()
        # fish redraws the words of the line separately.
        self.read_until(lambda text: all(word in text for word in words))
        self._write("\x15echo drop''ped\r")  # Ctrl-U
        self.read_until(lambda text: "dropped" in text)

    def read_until(self, seen) -> None:
        shown = b""
        while not seen(_ESCAPES.sub("", shown.decode(errors="replace"))):
            data = os.read(self._terminal, 65536)
            shown += data
            for question, answer in _ANSWERS.items():
                if question in data:
                    os.write(self._terminal, answer)

    def _write(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def close(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._terminal)


@pytest.fixture(params=STARTS)
def shell(request, controller, home) -> Generator[Shell]:
    controller.answers |= {
        "ListAliases": app_pb2.ListAliasesResult(aliases=[app_pb2.AliasInfo(alias="hello-from-tab")]),
        "ListRunners": runner_pb2.ListRunnersResponse(runners=[runner_pb2.RunnerInfo(runner_id="83dd5028-24bc")]),
    }
    with edit() as config:
        config.create_profile("locally")
    shell = Shell(request.param, home)
    yield shell
    shell.close()


def test_tab_completes_commands_flags_names_ids_and_profiles(shell: Shell) -> None:
    shell.tab("fal runn", "fal runners")
    shell.tab("fal runners profil", "fal runners profile")
    shell.tab("fal runners list --col", "fal runners list --columns")
    shell.tab("fal logs he", "fal logs hello-from-tab")
    shell.tab("fal api he", "fal api hello-from-tab")
    shell.tab("fal runners logs 83", "fal runners logs 83dd5028-24bc")
    shell.tab("fal profile set lo", "fal profile set locally")


NAMED = {
    "id",
    "nickname",
    "exec_id",
    "app_name",
    "app_rev",
    "key_id",
    "name",
    "profile",
    "request_id",
    "request_ids",
    "env",
}
# These name something that does not exist yet, or that no call lists.
WITHOUT = {
    ("drains", "create"): {"name"},
    ("environments", "create"): {"name"},
    ("notices", "create"): {"name"},
    ("profile", "create"): {"profile"},
    ("teams", "create"): {"name", "nickname"},
    ("teams", "rename"): {"name"},
    **dict.fromkeys([("deploy",), ("run",), ("dev",)], frozenset({"app_name"})),
    **dict.fromkeys([("logs",), ("apps", "logs"), ("runners", "logs")], frozenset({"request_id"})),
}


def test_every_name_and_id_is_completed() -> None:
    for path, parser in all_commands():
        # `exec --env NAME=VALUE` is repeated, so its default is a list.
        named = [action for action in parser._actions if action.dest in NAMED and not isinstance(action.default, list)]
        without = {action.dest for action in named if "completer" not in vars(action)}
        assert without <= WITHOUT.get(path, set()), path
