"""The files of the dashboard's pages. Those of other projects are unchanged, and none is superfluous."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files

import fal_server.http.dashboard as dashboard

FOLDER = files(dashboard)
STATIC = FOLDER / "static"
MOST_LINES = 2800


def test_files_of_other_projects_are_as_they_were_made() -> None:
    table = re.findall(r"^([0-9a-f]{64})  (\S+)$", (STATIC / "VENDORED.txt").read_text(), re.MULTILINE)
    hashes = {name: digest for digest, name in table}
    vendored = {file.name for file in STATIC.iterdir() if ".min." in file.name}
    assert set(hashes) == vendored
    for name, digest in hashes.items():
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest, name


def test_a_page_loads_nothing_from_elsewhere() -> None:
    for file in (FOLDER / "templates").iterdir():
        assert not re.search(r"(?:src|href)=\"(?:https?:)?//", file.read_text()), file.name


def test_the_dashboard_stays_small() -> None:
    sources = [file for folder in (FOLDER, FOLDER / "templates") for file in folder.iterdir() if file.is_file()]
    lines = [line for file in sources for line in file.read_text().splitlines() if line.strip()]
    assert len(lines) <= MOST_LINES
