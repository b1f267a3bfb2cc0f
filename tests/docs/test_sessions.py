"""A reader's terminal shows what the documentation shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.sessions import Names, Step, steps
from tests.support.controller import ROOT, Controller
from tests.support.shell import Shell

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# These pages start a controller, from an empty shell.
WHOLE = {"README.md", "docs/tutorials/first-app.md", "docs/tutorials/script-to-server.md"}
# These pages use the reader's own directory, and need no controller.
ALONE = {"docs/howto/test-apps.md"}
# Another test runs this page, because it edits files meanwhile.
ELSEWHERE = {"docs/howto/develop.md"}


def sessions() -> dict[str, list[Step]]:
    found = {page.relative_to(ROOT).as_posix(): steps(page.read_text()) for page in PAGES}
    return {page: shown for page, shown in found.items() if shown}


def play(shell: Shell, shown: list[Step]) -> None:
    names = Names()
    for step in shown:
        # A free port, because another controller may have the usual one.
        command = re.sub(r"^fal up\b", "fal up --port 0", names.command(step.command))
        printed, _ = shell.run(command)
        names.compare(step, printed)


@pytest.mark.parametrize("page", sorted(WHOLE))
def test_a_reader_can_follow_it_from_an_empty_shell(page: str, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    try:
        play(shell, sessions()[page])
        printed, code = shell.run("fal status")
        assert code == 1, printed
    finally:
        shell.run("fal down --now")
        shell.close()


@pytest.mark.parametrize("page", sorted(sessions().keys() - WHOLE - ALONE - ELSEWHERE))
def test_a_session_is_what_is_printed(page: str, controller: Controller, tmp_path: Path) -> None:
    kept = {name: value for name, value in controller.environment.items() if name.startswith("FAL_")}
    # The pages list the runner of hello, which may have ended since another page was run.
    assert controller.call("/local/hello", {"name": "docs"}).status == 200
    shell = Shell(tmp_path, kept)
    try:
        shell.run("source .venv/bin/activate")
        play(shell, sessions()[page])
    finally:
        shell.close()


@pytest.mark.parametrize("page", sorted(ALONE))
def test_a_reader_can_follow_it_without_a_controller(page: str, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    try:
        shell.run(f"source .venv/bin/activate; mkdir {tmp_path}/apps; cd {tmp_path}/apps")
        play(shell, sessions()[page])
    finally:
        shell.close()


def test_the_readme_s_way_to_install_works(tmp_path: Path) -> None:
    (command,) = re.findall(r"^uv tool install .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    shell = Shell(tmp_path, {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")})
    try:
        for line in (f"PATH={ROOT}/.venv/bin:$PATH {command}", f"{tmp_path}/bin/fal up --help"):
            printed, code = shell.run(line)
            assert code == 0, printed
    finally:
        shell.close()
