"""Blobs are complete, private and stored once."""

from __future__ import annotations

import asyncio
import hashlib
import stat

import pytest

from fal_server.core.faults import NotFound, Unavailable
from fal_server.store import FileBlobs


async def test_kept_by_hash(tmp_path):
    blobs = FileBlobs(tmp_path / "state" / "blobs")
    for content in (b"", b"x", bytes(range(256)) * 10_000):
        blob = await blobs.put(content)
        assert blob == hashlib.sha256(content).hexdigest()
        assert blobs.path(blob).read_bytes() == content
    assert FileBlobs(tmp_path / "state" / "blobs").path(blob).read_bytes() == content


async def test_private(tmp_path):
    directory = tmp_path / "blobs"
    path = FileBlobs(directory).path(await FileBlobs(directory).put(b"x"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {stat.S_IMODE(place.stat().st_mode) for place in (directory, path.parent)} == {0o700}


async def test_the_same_content_is_kept_once(tmp_path):
    blobs = FileBlobs(tmp_path)
    (blob,) = set(await asyncio.gather(*(blobs.put(b"x" * 100_000) for _ in range(20))))
    before = blobs.path(blob).stat()
    await blobs.put(b"x" * 100_000)
    assert blobs.path(blob).stat().st_ino == before.st_ino
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [blobs.path(blob)]


@pytest.mark.parametrize("blob", ["0" * 64, "", "x", "../../etc/passwd", "A" * 64, "0" * 63 + "\n"])
def test_missing(tmp_path, blob):
    with pytest.raises(NotFound, match=r"content with the hash .* not found"):
        FileBlobs(tmp_path).path(blob)


async def test_what_cannot_be_written_is_said(tmp_path):
    blobs = FileBlobs(tmp_path / "blobs")
    (tmp_path / "blobs").rmdir()
    with pytest.raises(Unavailable, match=r"1 bytes cannot be kept in .*: No such file"):
        await blobs.put(b"x")
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="cannot be used"):
        FileBlobs(tmp_path / "file" / "blobs")


async def test_what_a_killed_upload_left_is_removed(tmp_path):
    blob = await FileBlobs(tmp_path).put(b"x")
    (tmp_path / blob[:2] / ".draft-abc").touch()
    path = FileBlobs(tmp_path).path(blob)
    assert list(path.parent.iterdir()) == [path]
