"""Python blocks of the documentation run. `fal` parses every command line without output to compare."""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fal.deploy.load import load_app
from fal_cli.main import build_parser
from tests.support.controller import ROOT, Controller

SKILLS = sorted((ROOT / "cli" / "fal_cli" / "skills").rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")), *SKILLS]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
PLACEHOLDER = re.compile(r"\b[A-Z][A-Z_]{1,}\b|\.\.\.|\[|<")


def blocks(languages: set[str]) -> list[tuple[str, str]]:
    return [
        (page.relative_to(ROOT).as_posix(), block)
        for page in PAGES
        for language, block in FENCE.findall(page.read_text())
        if language in languages
    ]


def command_lines() -> list[tuple[str, str]]:
    found = []
    for page, block in blocks({"", "bash", "sh"}):
        for line in block.splitlines():
            match = re.match(r"^(?:\$ )?(fal (?!\[)[^#|<>;&]*)", line.strip())
            if match and not line.startswith(("fal_", "fal/", "fal  ")):
                found.append((page, match[1].split("  ")[0].strip()))
    return found


# Their blocks are files that refer to one another: `test_sessions` saves and runs them.
FILES = {"docs/howto/test-apps.md", "docs/howto/develop.md"}


@pytest.mark.parametrize(("page", "block"), [found for found in blocks({"python"}) if found[0] not in FILES])
def test_a_python_block_runs(page: str, block: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = tmp_path / "block.py"
    path.write_text(block)
    if "fal.App" in block or "fal.function" in block:
        with load_app(path) as loaded:
            assert loaded.symbol
        return
    controller: Controller = request.getfixturevalue("controller")
    done = subprocess.run(
        [sys.executable, str(path)], env=controller.environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{page}:\n{block}\n{done.stderr}"


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_a_command_line_is_understood(page: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Placeholders in capitals stand for values; numbers where a number is wanted."""
    words = shlex.split(line)[1:]
    words = words[: words.index("--") + 2] if "--" in words else words
    with contextlib.suppress(SystemExit):
        build_parser(words).parse_args(words)
    said = capsys.readouterr().err
    # A placeholder may stand for a number or a choice; the words around it must be right.
    excused = PLACEHOLDER.search(line) and re.search("invalid|required", said)
    assert not said or excused, f"{page}: {line}\n{said}"
