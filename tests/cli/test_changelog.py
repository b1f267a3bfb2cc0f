"""`fal changelog`: the newest version, or all after one."""

from __future__ import annotations

import pytest

from fal_cli.commands.changelog import read, sections
from fal_cli.main import main

TEXT = """# Changelog

## [Unreleased]

## [2.0.0] - 2026-02-01

### Changed

- Two.

## [1.0.0] - 2026-01-01

### Added

- One, with [a link](x).
"""


def test_empty_versions_are_left_out() -> None:
    assert [(version, text.splitlines()[-1]) for version, text in sections(TEXT)] == [
        ("2.0.0", "- Two."),
        ("1.0.0", "- One, with [a link](x)."),
    ]


def test_the_newest_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["changelog"]) == 0
    shown = capsys.readouterr().out
    (version, text), *_ = sections(read())
    assert shown == f"{text}\n"
    assert shown.startswith(f"## [{version}]")


def test_what_came_after_a_version(capsys: pytest.CaptureFixture[str]) -> None:
    found = sections(read())
    for version in (found[-1][0], f"v{found[-1][0]}"):
        assert main(["changelog", "--since", version]) == 0
        shown = capsys.readouterr().out
        assert [each for each, _ in sections(shown)] == [each for each, _ in found[:-1]]
    assert main(["changelog", "--since", found[0][0]]) == 0
    assert capsys.readouterr().out == "Nothing is newer.\n"


def test_a_version_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["changelog", "--since", "9.9"]) == 2
    assert f"there is no version 9.9: the changelog has {sections(read())[0][0]}" in capsys.readouterr().err
