"""Files of /data are complete. No name or link leads out of it."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.data_paths import data_parts
from fal_server.core.faults import AlreadyExists, Fault, InvalidArgument, NotFound, Unavailable
from fal_server.store.files.data_directory import DataDirectory
from tests.runner.test_removal import nest

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


def plant(place: Path, kind: str, outside: Path) -> None:
    """Put something of an app's in the place of the controller's."""
    if place.is_symlink() or place.is_file():
        place.unlink()
    elif place.is_dir():
        shutil.rmtree(place)
    match kind:
        case "link":
            place.symlink_to(outside)
        case "link to nothing":
            place.symlink_to("nowhere")
        case "file":
            place.write_text("")
        case "pipe":
            os.mkfifo(place)
        case "full directory":
            (place / "x" / "y").mkdir(parents=True)
        case "closed directory":
            (place / "x").mkdir(parents=True)
            place.chmod(0)
        case _:
            raise AssertionError(kind)


PLANTS = ["link", "link to nothing", "file", "pipe", "full directory", "closed directory"]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory that is not the account's, and what is in it."""
    directory = tmp_path / "state"
    directory.mkdir()
    (directory / "admin.key").write_text("secret")
    (directory / "admin.key").chmod(0o600)
    return directory


def untouched(outside: Path) -> bool:
    (found,) = outside.iterdir()
    return (found.name, found.read_text(), found.stat().st_mode & 0o777) == ("admin.key", "secret", 0o600)


@pytest.mark.parametrize("kind", PLANTS)
async def test_an_app_cannot_lead_drafts_elsewhere(data: DataDirectory, outside: Path, kind: str) -> None:
    plant(data.directory / ".fal-drafts", kind, outside)
    draft = data.drafts.open()
    await draft.write(b"x")
    await draft.finish()
    data.place(draft.path, ("file",))
    assert read(data, "/data/file") == b"x"
    assert untouched(outside)


@pytest.mark.parametrize("kind", PLANTS)
def test_what_an_app_left_there_stops_no_start(data: DataDirectory, outside: Path, kind: str) -> None:
    plant(data.directory / ".fal-drafts", kind, outside)
    DataDirectory(data.directory)
    assert list((data.directory / ".fal-drafts").iterdir()) == []
    assert untouched(outside)


@pytest.mark.parametrize("kind", [kind for kind in PLANTS if "directory" not in kind and kind != "file"])
async def test_a_draft_that_an_app_replaced_is_neither_read_nor_changed(
    data: DataDirectory, outside: Path, kind: str
) -> None:
    part, whole = data.drafts.open(), data.drafts.open()
    await part.finish()
    plant(part.path, kind, outside / "admin.key")
    with pytest.raises(Unavailable, match=r"a part of the upload cannot be read|does not take"):
        await whole.append_file(part.path)
    whole.discard()
    with pytest.raises(Fault):
        data.place(part.path, ("file",))
    with pytest.raises(Fault):
        data.extract(part.path, ("files",))
    part.discard()
    assert untouched(outside)
    assert data.entries(()) == []


async def test_the_drafts_of_an_app_that_replaces_their_directory_are_not_found_elsewhere(
    data: DataDirectory, outside: Path
) -> None:
    draft = data.drafts.open()
    await draft.finish()
    (outside / "admin.key").rename(outside / draft.path.name)
    plant(data.directory / ".fal-drafts", "link", outside)
    for act in (lambda: data.place(draft.path, ("file",)), lambda: data.extract(draft.path, ("files",))):
        with pytest.raises(Fault):
            act()
    draft.discard()
    (outside / draft.path.name).rename(outside / "admin.key")
    assert untouched(outside)


def test_what_is_nested_too_deep_for_a_path_is_counted_and_deleted(data: DataDirectory) -> None:
    write(data, "/data/deep/file", b"12345")
    nest(data.directory / "deep", 1200)
    assert data.used() == 5
    data.delete(("deep",))
    assert data.entries(()) == []


@pytest.mark.parametrize("mode", [0, 0o100])
def test_a_directory_without_rights_counts(data: DataDirectory, mode: int) -> None:
    write(data, "/data/hidden/file", b"12345")
    (data.directory / "hidden").chmod(mode)
    assert data.used() == 5


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
