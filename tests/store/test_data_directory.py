"""/data: files are complete, and no name and no link leaves it."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.data_paths import data_parts
from fal_server.core.faults import AlreadyExists, Fault, InvalidArgument, NotFound
from fal_server.store.files.data_directory import DataDirectory

NAMES = st.sampled_from(["a", "b", "link", "up", "out", "abs", "loop", "..", ".", "", "data", "etc"])
TARGETS = st.lists(NAMES, max_size=5).map("/".join).flatmap(lambda rest: st.sampled_from([rest, f"/{rest}"]))


def write(data: DataDirectory, path: str, content: bytes = b"x") -> None:
    draft = data.directory / ".fal-drafts" / "draft"
    draft.write_bytes(content)
    data.place(draft, data_parts(path))


def read(data: DataDirectory, path: str) -> bytes:
    opened = data.open(data_parts(path))
    with os.fdopen(opened.descriptor, "rb") as file:
        return file.read()


@pytest.fixture
def data(tmp_path: Path) -> DataDirectory:
    return DataDirectory(tmp_path / "data")


def test_a_file_is_written_listed_read_moved_and_deleted(data: DataDirectory) -> None:
    write(data, "/data/models/x/w.bin", b"12345")
    (entry,) = data.entries(data_parts("/data/models/x"))
    assert (entry.path, entry.size, entry.is_file) == ("/data/models/x/w.bin", 5, True)
    assert [e.path for e in data.entries(())] == ["/data/models"]
    assert data.entries(data_parts("/data/models/x/w.bin")) == [entry]
    assert read(data, "/data/models/x/w.bin") == b"12345"
    data.rename(data_parts("/data/models/x"), data_parts("/data/other/y"))
    assert read(data, "data/other/y/w.bin") == b"12345"
    data.delete(data_parts("/data/other"))
    assert [e.path for e in data.entries(())] == ["/data/models"]


@pytest.mark.parametrize("path", ["/data/../x", "/etc/passwd", "x", "", "/", "/data/a\0b", "/data/" + "n" * 256])
def test_what_is_no_path_below_data_is_refused(path: str) -> None:
    with pytest.raises(InvalidArgument):
        data_parts(path)


def test_drafts_are_nobodys_business(data: DataDirectory) -> None:
    (data.directory / ".fal-drafts" / "left").write_bytes(b"")
    assert data.entries(()) == []
    with pytest.raises(InvalidArgument):
        data_parts("/data/.fal-drafts/left")
    assert not (DataDirectory(data.directory).directory / ".fal-drafts" / "left").exists()


def test_links_within_are_followed_and_links_out_are_not(data: DataDirectory, tmp_path: Path) -> None:
    write(data, "/data/blobs/1", b"weights")
    (tmp_path / "secret").write_text("secret")
    (data.directory / "snap").mkdir()
    (data.directory / "snap" / "relative").symlink_to("../blobs/1")
    (data.directory / "snap" / "absolute").symlink_to("/data/blobs/1")
    (data.directory / "out").symlink_to("../secret")
    (data.directory / "etc").symlink_to("/etc")
    (data.directory / "loop").symlink_to("loop")
    assert read(data, "/data/snap/relative") == read(data, "/data/snap/absolute") == b"weights"
    assert {e.path: e.size for e in data.entries(("snap",))} == {"/data/snap/absolute": 7, "/data/snap/relative": 7}
    for path in ("/data/out", "/data/etc/passwd", "/data/loop"):
        with pytest.raises(InvalidArgument):
            read(data, path)
    with pytest.raises(Fault):
        write(data, "/data/etc/fal-test")
    assert not Path("/etc/fal-test").exists()
    write(data, "/data/out", b"mine")
    assert (tmp_path / "secret").read_text() == "secret"
    assert read(data, "/data/out") == b"mine"


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        (lambda d: d.open(("nope",)), NotFound),
        (lambda d: d.open(("dir",)), InvalidArgument),
        (lambda d: d.open(()), InvalidArgument),
        (lambda d: d.open(("pipe",)), InvalidArgument),
        (lambda d: d.entries(("pipe", "x")), InvalidArgument),
        (lambda d: d.entries(("nope",)), NotFound),
        (lambda d: d.delete(()), InvalidArgument),
        (lambda d: d.delete(("nope",)), NotFound),
        (lambda d: d.rename(("nope",), ("x",)), NotFound),
        (lambda d: d.rename(("dir",), ("full",)), AlreadyExists),
        (lambda d: d.rename(("dir",), ()), InvalidArgument),
        (lambda d: write(d, "/data/file/x"), InvalidArgument),
        (lambda d: write(d, "/data"), InvalidArgument),
    ],
)
def test_what_cannot_be_done_says_why(data: DataDirectory, act: Callable[[DataDirectory], object], kind: type) -> None:
    write(data, "/data/file")
    write(data, "/data/full/x")
    (data.directory / "dir").mkdir()
    os.mkfifo(data.directory / "pipe")
    with pytest.raises(kind, match="/data"):
        act(data)


def test_an_archive_is_unpacked_and_one_that_leads_out_writes_nothing(data: DataDirectory, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.zip", tmp_path / "bad.zip"
    with zipfile.ZipFile(good, "w") as archive:
        archive.writestr("a/b.txt", "b")
        archive.writestr("c.txt", "c")
    with zipfile.ZipFile(bad, "w") as archive:
        archive.writestr("fine.txt", "x")
        archive.writestr("../../evil.txt", "x")
    data.extract(good, ("sync",))
    assert read(data, "/data/sync/a/b.txt") == b"b"
    with pytest.raises(InvalidArgument):
        data.extract(bad, ("sync",))
    assert {e.path for e in data.entries(("sync",))} == {"/data/sync/a", "/data/sync/c.txt"}
    (tmp_path / "no.zip").write_bytes(b"PK nothing")
    with pytest.raises(InvalidArgument, match="cannot be read"):
        data.extract(tmp_path / "no.zip", ("sync",))


@given(links=st.dictionaries(st.sampled_from(["a", "b", "link", "up", "out", "abs"]), TARGETS), path=TARGETS)
def test_whatever_links_there_are_nothing_outside_is_reached(
    tmp_path_factory: pytest.TempPathFactory, links: dict[str, str], path: str
) -> None:
    root = tmp_path_factory.mktemp("p")
    (root / "etc").mkdir()
    for name in ("a", "b", "etc/a", "etc/b"):
        (root / name).write_text("outside") if "/" in name else (root / name).mkdir()
    data = DataDirectory(root / "data")
    (data.directory / "b" / "a").mkdir(parents=True)
    for name, target in links.items():
        place = data.directory / name
        if not place.exists() and not place.is_symlink() and target:
            place.symlink_to(target)
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file() and not p.is_relative_to(data.directory)}
    for act in (
        lambda: read(data, f"/data/{path}"),
        lambda: write(data, f"/data/{path}", b"inside"),
        lambda: data.delete(data_parts(f"/data/{path}")),
    ):
        try:
            found = act()
        except Fault:
            continue
        assert found != b"outside"
    after = {p: p.read_bytes() for p in root.rglob("*") if p.is_file() and not p.is_relative_to(data.directory)}
    assert after == before
