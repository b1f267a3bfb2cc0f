"""The client without POSIX-only features, with a normal controller.

`make test-client` runs the client's own tests in the same way.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.controller import BIN, ROOT
from tests.support.official import Terminal
from tests.support.place import Place, entered

WITHOUT_POSIX = ROOT / "tests" / "support" / "without_posix"
_EVERY_MODULE = """
import importlib, pkgutil
for root in ("fal", "fal_grpc", "fal_cli"):
    for found in pkgutil.walk_packages(importlib.import_module(root).__path__, f"{root}."):
        importlib.import_module(found.name)
        print(found.name)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Generator[Place]:
    with entered(tmp_path_factory.mktemp("other")) as place:
        yield place


@pytest.fixture
def environment(place: Place) -> dict[str, str]:
    return {**place.controller.environment, "PYTHONPATH": str(WITHOUT_POSIX)}


def fal(
    environment: dict[str, str], *arguments: str, stdin: bytes = b"", cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [str(BIN / "fal"), *arguments], env=environment, input=stdin, cwd=cwd, capture_output=True, check=False
    )


def test_every_module_can_be_imported() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(WITHOUT_POSIX), str(ROOT), str(ROOT / "cli")])}
    done = subprocess.run(
        [sys.executable, "-c", _EVERY_MODULE], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "fal_cli.terminal.remote_command" in done.stdout.split()


def test_from_a_deploy_to_a_command_in_a_runner(environment: dict[str, str], place: Place, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "word.txt").write_text("from a file")
    (tmp_path / "app.py").write_text(
        "import fal\n\n\nclass Files(fal.App):\n"
        '    app_auth = "public"\n    app_files = ["data"]\n\n'
        '    @fal.endpoint("/")\n    def read(self) -> str:\n        return open("data/word.txt").read()\n'
    )
    for arguments, shown in (
        (["deploy", "app.py", "--app-name", "files"], "Deployed files"),
        (["api", "local/files"], "from a file"),
        (["apps", "list"], "files"),
        (["runners", "list", "--json"], '"alias": "files"'),
        (["runners", "logs", place.runner_id], "worker started"),
        (["profile", "create", "mine"], "created"),
        (["profile", "list"], "mine"),
        (["doctor"], "answers in"),
        (["doctor"], "a controller needs Linux; the client works here"),
    ):
        done = fal(environment, *arguments, cwd=tmp_path)
        assert shown in done.stdout.decode(), (arguments, done.stderr.decode())


def test_a_controller_needs_linux(environment: dict[str, str], tmp_path: Path) -> None:
    for arguments in (["up"], ["up", "--install", "--print"]):
        done = fal(environment, *arguments, "--state-dir", str(tmp_path))
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"a controller needs Linux; on this system the client works" in done.stderr


def test_a_command_with_pipes(environment: dict[str, str], place: Place) -> None:
    large = b"x" * 3_000_000
    done = fal(environment, "runners", "exec", place.runner_id, "--", "sh", "-c", "cat; exit 7", stdin=large)
    assert (done.returncode, done.stdout == large, done.stderr) == (7, True, b"")
    nothing = fal(environment, "runners", "exec", place.runner_id, "--", "cat")
    assert (nothing.returncode, nothing.stdout) == (0, b"")


def test_a_shell_says_that_it_cannot(environment: dict[str, str], place: Place, tmp_path: Path) -> None:
    with Terminal([str(BIN / "fal"), "runners", "shell", place.runner_id], environment, tmp_path) as terminal:
        terminal.wait_for("needs Linux or macOS")
        assert terminal.wait() == 1
