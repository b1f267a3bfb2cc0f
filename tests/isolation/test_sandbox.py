"""The list of a sandbox's entries. No path in it comes from an app."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fal_runner.isolation.levels import Isolation
from fal_runner.isolation.sandbox import (
    LINK,
    NO_VIEW,
    READ,
    WRITE,
    has_sandbox,
    isolation_of,
    read,
    seen_in_sandbox,
    written,
)
from fal_server.core.identity import LOCAL, AccountId
from fal_server.engines.local.sandboxes import Sandboxes


def sandboxes(tmp_path: Path, level: Isolation = Isolation.PROCESS) -> Sandboxes:
    for name in ("home", "data", "api"):
        (tmp_path / name).mkdir(exist_ok=True)
    return Sandboxes(isolation=level, home=tmp_path / "home", data=lambda _: tmp_path / "data", calls=tmp_path / "api")


def environment(root: Path, base: Path) -> Path:
    """A virtual environment of an interpreter."""
    python = root / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(base)
    (root / "pyvenv.cfg").write_text(f"home = {base.parent}\n")
    return python


def installation(prefix: Path) -> Path:
    """An interpreter with its library."""
    python = prefix / "bin" / "python3"
    for directory in (python.parent, prefix / "lib", prefix / "secrets"):
        directory.mkdir(parents=True, exist_ok=True)
    python.write_text("")
    return python


def test_a_list_is_read_as_it_was_written() -> None:
    places = [(READ, "/a b", "/c"), (WRITE, "/d", "/e"), (LINK, "../x", "/y")]
    assert read(written(places)) == places


@pytest.mark.parametrize("path", ["/a\tb", "/a\nb"])
def test_a_path_that_would_be_another_line_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="no sandbox can have it"):
        written([(READ, path, path)])


def test_levels_by_what_a_runner_is_told(tmp_path: Path) -> None:
    python = Path(sys.executable)
    told = {level: sandboxes(tmp_path, level).of(LOCAL, python) for level in Isolation}
    assert told[Isolation.NONE] == NO_VIEW
    assert told[Isolation.VIEW] == ""
    assert [has_sandbox(told[level]) for level in Isolation] == [True, False, False]
    assert [isolation_of(told[level]) for level in Isolation] == [level.value for level in Isolation]


def test_paths_of_a_runner_are_seen_in_its_sandbox() -> None:
    assert seen_in_sandbox("/state/runners/1/app", "/state/runners/1") == "/app"
    assert seen_in_sandbox("/state/runners/1/code/function", "/state/runners/1") == "/fal/function"
    assert seen_in_sandbox("/state/runners/1/apple", "/state/runners/1") == "/state/runners/1/apple"


def test_a_sandbox_has_what_its_interpreter_needs(tmp_path: Path) -> None:
    base = installation(tmp_path / "pythons" / "3.11.9")
    (tmp_path / "pythons" / "3.11").symlink_to("3.11.9")
    python = environment(tmp_path / "environment", tmp_path / "pythons" / "3.11" / "bin" / "python3")
    places = read(sandboxes(tmp_path).of(LOCAL, python))
    assert (READ, str(tmp_path / "environment"), str(tmp_path / "environment")) in places
    assert (READ, str(base.parent.parent), str(base.parent.parent)) in places
    assert (LINK, "3.11.9", str(tmp_path / "pythons" / "3.11")) in places


def test_an_interpreter_in_a_home_does_not_show_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "operator"))
    python = environment(tmp_path / "environment", installation(tmp_path / "operator"))
    sources = {source for _, source, _ in read(sandboxes(tmp_path).of(LOCAL, python))}
    assert str(tmp_path / "operator" / "lib") in sources
    assert not sources & {str(tmp_path), str(tmp_path / "operator"), str(tmp_path / "operator" / "secrets")}


def test_a_link_in_a_home_does_not_show_the_home(tmp_path: Path) -> None:
    base = installation(tmp_path / "pythons" / "3.11.9")
    link = tmp_path / "operator" / "bin" / "python3"
    link.parent.mkdir(parents=True)
    link.symlink_to(base)
    places = read(sandboxes(tmp_path).of(LOCAL, environment(tmp_path / "environment", link)))
    assert (LINK, str(base), str(link)) in places
    assert str(tmp_path / "operator") not in {source for _, source, _ in places}


def test_accounts_have_homes_of_their_own(tmp_path: Path) -> None:
    here = sandboxes(tmp_path)
    assert here.home_of(LOCAL) == tmp_path / "home"
    assert here.home_of(AccountId("other")) == tmp_path / "homes" / "other"
