"""`fal runners cp`: which names from a runner are accepted."""

from __future__ import annotations

import contextlib
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fal_cli.commands.runners.transfer import unpack
from fal_cli.exit_codes import CommandError
from fal_cli.main import main

PARTS = st.sampled_from(["a", "b", "..", ".", "", "/", "\\", "..\\..", "a b", "é"])


def archive(members: list[tuple[str, bytes, bytes]]) -> io.BytesIO:
    """Return an archive. Each member is a name, a type of tarfile, and its content or target."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.REGTYPE:
                member.size = len(content)
            else:
                member.linkname = content.decode()
            tar.addfile(member, io.BytesIO(content))
    file.seek(0)
    return file


@given(st.lists(st.tuples(st.lists(PARTS, max_size=4).map("/".join), st.booleans()), max_size=4))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_is_written_outside(tmp_path: Path, names: list[tuple[str, bool]]) -> None:
    outer = tmp_path / "outer"
    inner = outer / "x" / "inner"
    inner.mkdir(parents=True, exist_ok=True)
    members = [(name, tarfile.DIRTYPE if folder else tarfile.REGTYPE, b"") for name, folder in names]
    with contextlib.suppress(CommandError, OSError):  # refused, or a file and a folder of one name
        unpack(archive(members), inner)
    assert [path.name for path in outer.iterdir()] == ["x"]
    assert [path.name for path in (outer / "x").iterdir()] == ["inner"]
    assert [path.name for path in tmp_path.iterdir()] == ["outer"]


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a/../../up", "..\\up"])
def test_a_name_that_leads_out_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(CommandError, match="leads out of the folder"):
        unpack(archive([(name, tarfile.REGTYPE, b"x")]), tmp_path)


def test_a_link_is_left_out_so_that_no_later_name_goes_through_it(tmp_path: Path) -> None:
    target = tmp_path / "in"
    target.mkdir()
    members = [
        ("d", tarfile.SYMTYPE, b".."),
        ("d/up", tarfile.REGTYPE, b"x"),
        ("hard", tarfile.LNKTYPE, b"/etc/passwd"),
    ]
    unpack(archive(members), target)
    assert (target / "d" / "up").read_bytes() == b"x"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    assert sorted(path.name for path in target.iterdir()) == ["d"]


@pytest.mark.parametrize("words", [["a", "b"], ["r1:a", "r2:b"], ["./r1:a", "b"]])
def test_one_side_is_a_runner(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(["runners", "cp", *words]) == 2
    assert "ID:PATH" in capsys.readouterr().err
