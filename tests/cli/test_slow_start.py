"""`fal up -d` waits for a slow start while its log grows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from fal_cli.commands import up


@pytest.fixture
def pipe() -> Iterator[tuple[TextIO, int]]:
    reader, writer = os.pipe()
    with os.fdopen(reader) as announcements:
        yield announcements, writer
    os.close(writer)


def test_a_start_that_gets_on_is_waited_for(
    pipe: tuple[TextIO, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    announcements, writer = pipe
    log = tmp_path / "controller.log"
    log.write_text("an earlier start\n")
    before = log.stat().st_size
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        if len(notes) == 3:
            os.write(writer, b"ready\n")
        else:
            add("moving files")

    def add(line: str) -> None:
        with log.open("a") as file:
            file.write(f"{line}\n")

    monkeypatch.setattr(up, "print_note", note)
    add("starting")
    assert up.says_something(announcements, log, before, seconds=0.01)
    assert len(notes) == 3
    assert str(log) in notes[0]


def test_a_start_that_says_nothing_more_is_given_up(pipe: tuple[TextIO, int], tmp_path: Path) -> None:
    log = tmp_path / "controller.log"
    log.write_text("an earlier start\n")
    assert not up.says_something(pipe[0], log, log.stat().st_size, seconds=0.01)
