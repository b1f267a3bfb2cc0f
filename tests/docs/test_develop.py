"""`fal dev` prints what docs/howto/develop.md shows."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.sessions import steps
from tests.support.controller import ROOT, Controller
from tests.support.dev import Dev
from tests.support.shell import Shell

PAGE = (ROOT / "docs" / "howto" / "develop.md").read_text()
EDITS = ["GREETING =\n", 'GREETING = "Good evening"\n']


def pattern(line: str, place: Path) -> str:
    """Return the pattern of a line of the page. Times, durations and ports may differ, and paths are this run's."""
    text = re.escape(line).replace(r"/home/ada/hello", re.escape(str(place)))
    text = re.sub(r"\d\d:\d\d:\d\d", r"\\d\\d:\\d\\d:\\d\\d", text)
    text = re.sub(r"127\\\.0\\\.0\\\.1:\d+", r"127\\.0\\.0\\.1:\\d+", text)
    return re.sub(r"\d+\\\.\d\d\\ s", r"\\d+\\.\\d\\d\\ s", text)


def test_an_author_sees_what_the_page_shows(controller: Controller, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    for step in steps(PAGE):
        shell.run(f"cd {tmp_path}; {step.command}")
    shell.close()
    (shown,) = re.findall(r"^```text\n\$ fal dev hello.py\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    edits = iter(EDITS)
    dev = Dev("hello-dev", tmp_path, controller.environment, "hello.py")
    try:
        for line in shown.splitlines():
            if line.endswith("edited"):
                (tmp_path / "helpers.py").write_text(next(edits))
            dev.until_match(pattern(line, tmp_path))
        answer = controller.call("/local/hello-dev/", {})
        assert answer.json() == {"text": "Good evening"}
    finally:
        dev.stop()
