"""Code and files on disk move into a bucket. The database remembers where they are."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fal_server.composition.content import StoredContent, check_content, open_content
from fal_server.composition.moved_content import move_content
from fal_server.composition.settings import Settings
from fal_server.composition.state import StateDir
from fal_server.composition.storage import open_storage
from fal_server.core.accounts import KnownAccounts
from fal_server.core.faults import Unavailable
from fal_server.core.identity import LOCAL
from fal_server.store import AesVault, SqlStore, load_master_key, open_store
from fal_server.store.files.blobs import FileBlobs
from tests.support.s3 import S3Server, s3_server

WHOLE, BARE, BROKEN, EMPTY, MOVED = (letter * 32 for letter in "wbkem")


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path / "state")


@pytest.fixture
async def store(state: StateDir) -> AsyncIterator[SqlStore]:
    store = await open_store(state.database, AesVault(load_master_key(state.root, os.environ)))
    yield store
    await store.close()


def put_on_disk(state: StateDir, object_id: str, *, about: str | None, content: bytes | None) -> Path:
    place = state.objects / object_id[:2] / object_id
    place.mkdir(parents=True)
    if about is not None:
        (place / "about.json").write_text(about)
    if content is not None:
        (place / "content").write_bytes(content)
    return place


def described() -> str:
    about = {"account": LOCAL, "name": "a", "content_type": "a/b", "size": 1, "etag": "e", "expires_at": None}
    return json.dumps(about | {"created_at": datetime.now(UTC).isoformat()})


async def moved(state: StateDir, url: str) -> StoredContent:
    content = await open_content(state, url, lambda: [LOCAL], lambda: True)
    await move_content(state, content, [LOCAL])
    return content


async def test_what_is_not_whole_is_named_and_left(
    s3: S3Server, state: StateDir, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"s3://{s3.bucket()}/x"
    left = [
        put_on_disk(state, BARE, about=None, content=b"cut off"),
        put_on_disk(state, BROKEN, about="{}", content=b"x"),
        put_on_disk(state, EMPTY, about=described(), content=None),
    ]
    put_on_disk(state, WHOLE, about=described(), content=b"x")
    code = FileBlobs(state.blobs)
    changed, kept = await code.put(b"changed"), await code.put(b"kept")
    code.path(changed).write_bytes(b"other")
    with caplog.at_level(logging.WARNING):
        content = await moved(state, url)
    assert content.objects.get(WHOLE)[1].read_bytes() == b"x"
    assert content.blobs.path(kept).read_bytes() == b"kept"
    assert sorted(state.objects.glob("*/*")) == sorted(left)
    assert code.path(changed).read_bytes() == b"other"
    for path in (*left, code.path(changed)):
        assert str(path) in caplog.text


async def test_a_move_that_was_interrupted_is_ended(s3: S3Server, state: StateDir) -> None:
    url = f"s3://{s3.bucket()}/x"
    put_on_disk(state, MOVED, about=described(), content=b"x")
    await moved(state, url)
    put_on_disk(state, MOVED, about=described(), content=None)  # its end was not reached
    content = await moved(state, url)
    assert content.objects.get(MOVED)[1].read_bytes() == b"x"
    assert list(state.objects.glob("*/*")) == []


async def test_a_bucket_that_is_left_out_is_noticed(state: StateDir, store: SqlStore) -> None:
    for alone in (True, False):
        await check_content(state, "s3://box/one", store.sealed, claim=True, alone=alone)
        await check_content(state, "s3://box/one", store.sealed, alone=alone)
        with pytest.raises(Unavailable, match=r"are in s3://box/one, and .*: start it with --content s3://box/one"):
            await check_content(state, None, store.sealed, claim=True, alone=alone)
    with pytest.raises(Unavailable, match="that is s3://box/one"):
        await check_content(state, "s3://box/two", store.sealed, claim=True)
    await check_content(state, "s3://box/two", store.sealed, claim=True, alone=True)
    with pytest.raises(Unavailable, match="--content s3://box/two"):
        await check_content(state, None, store.sealed)


async def test_nothing_moves_before_the_place_is_checked(s3: S3Server, state: StateDir, store: SqlStore) -> None:
    code = FileBlobs(state.blobs)
    blob = await code.put(b"code")
    await check_content(state, "s3://box/one", store.sealed, claim=True)
    settings = Settings(content=f"s3://{s3.bucket()}/two")
    async with AsyncExitStack() as stack:
        with pytest.raises(Unavailable, match="that is s3://box/one"):
            await open_storage(
                state=state, settings=settings, accounts=KnownAccounts([]), epoch=1, certain=lambda: True, stack=stack
            )
    assert code.path(blob).read_bytes() == b"code"
