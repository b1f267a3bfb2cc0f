"""Half-written state directories. The controller repairs them at its start, or reports what is broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.controller import start


def test_a_start_mends_what_it_can_and_names_what_it_cannot(tmp_path: Path) -> None:
    root = tmp_path / "state"
    first = start(root)
    first.fal("secrets", "set", "KEPT=yes")
    first.process.kill()
    first.process.wait()

    (root / "admin.key").write_bytes(b"\xff\x00half")
    (root / "controller.json").write_text('{"pid": ')
    second = start(root)
    assert second.key != first.key
    assert "KEPT" in second.fal("secrets", "list").stdout
    assert second.call("/", key=first.key).status != 401, "who had the first key has it still"
    assert json.loads((root / "controller.json").read_text())["pid"] == second.process.pid
    assert second.stop() == 0

    database = (root / "fal.db").read_bytes()
    for broken, words in (
        (b"", "is empty, though admin.key says that it was in use"),
        (database[:5000], "is damaged: put a backup"),
    ):
        (root / "fal.db").write_bytes(broken)
        with pytest.raises(AssertionError, match=f"fal.db {words}"):
            start(root)
    (root / "fal.db").write_bytes(database)
    third = start(root)
    assert "KEPT" in third.fal("secrets", "list").stdout
    assert third.stop() == 0
