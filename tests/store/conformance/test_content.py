"""Code and files, in a directory and in a bucket."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import stat
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fal_server.core.faults import InvalidArgument, NotFound, Unavailable
from fal_server.core.identity import LOCAL, AccountId
from fal_server.ports.files import StoredObject
from fal_server.store.bucket.bucket import Bucket, Entry, Refused
from fal_server.store.bucket.copies import Copies
from fal_server.store.bucket.hashed import BucketAppFiles, BucketBlobs
from fal_server.store.bucket.objects import BucketObjects
from fal_server.store.files.app_files import DiskAppFiles
from fal_server.store.files.blobs import FileBlobs
from fal_server.store.files.objects import DiskObjects
from tests.support.s3 import SECRET, S3Server, s3_server
from tests.support.waiting import until

PAST, FUTURE = datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(days=1)
MODE = stat.S_IFREG | 0o750


@dataclass(frozen=True, kw_only=True)
class Stores:
    """The content stores of one controller."""

    blobs: FileBlobs | BucketBlobs
    app_files: DiskAppFiles | BucketAppFiles
    objects: DiskObjects | BucketObjects


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(params=["directory", "bucket"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Stores]:
    """Return what opens the stores, on one machine or another."""
    if request.param == "directory":
        return lambda _: Stores(
            blobs=FileBlobs(tmp_path / "blobs"),
            app_files=DiskAppFiles(tmp_path / "app-files"),
            objects=DiskObjects(tmp_path / "objects"),
        )
    s3 = request.getfixturevalue("s3")
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    url = f"s3://{s3.bucket()}/some/prefix"
    return lambda machine: in_bucket(Bucket(url), tmp_path / machine)


def in_bucket(bucket: Bucket, directory: Path, certain: Callable[[], bool] = lambda: True) -> Stores:
    copies = Copies(directory)
    return Stores(
        blobs=BucketBlobs(bucket, copies, certain),
        app_files=BucketAppFiles(bucket, "local", copies, certain),
        objects=BucketObjects(bucket, copies),
    )


@pytest.fixture
def stores(opened: Callable[[str], Stores]) -> Stores:
    return opened("one")


def draft(directory: Path, content: bytes) -> Path:
    path = directory / f"draft-{hashlib.sha256(content).hexdigest()[:8]}"
    path.write_bytes(content)
    return path


def app_file(content: bytes, mode: int = MODE) -> str:
    return hashlib.sha256(content + str(mode).encode()).hexdigest()


def stored(object_id: str = "a" * 32, **changes: object) -> StoredObject:
    made = StoredObject(
        account=LOCAL,
        object_id=object_id,
        name="cat.png",
        content_type="image/png; a=b",
        size=3,
        etag="e",
        created_at=PAST,
        expires_at=None,
    )
    return replace(made, **changes)


async def test_another_machine_finds_what_was_stored(opened: Callable[[str], Stores], tmp_path: Path) -> None:
    one = opened("one")
    large = os.urandom(12 * 1024 * 1024)  # in parts
    blobs = [await one.blobs.put(content) for content in (b"", b"code", large)]
    one.app_files.place(draft(tmp_path, b"file"), app_file(b"file"), MODE)
    one.objects.place(draft(tmp_path, b"png"), stored(expires_at=FUTURE))
    for stores in (one, opened("two"), opened("two")):
        assert [stores.blobs.path(blob).read_bytes() for blob in blobs] == [b"", b"code", large]
        assert stores.app_files.missing([app_file(b"file"), app_file(b"other")]) == [app_file(b"other")]
        path = stores.app_files.path(app_file(b"file"))
        assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"file", 0o750)
        found, content = stores.objects.get("a" * 32)
        assert (found, content.read_bytes()) == (stored(expires_at=FUTURE), b"png")


@pytest.mark.parametrize("name", ["0" * 64, "", "x", "../../etc/passwd", "A" * 64, "0" * 63 + "\n"])
def test_what_was_not_stored_is_not_found(stores: Stores, name: str) -> None:
    with pytest.raises(NotFound):
        stores.blobs.path(name)
    with pytest.raises(NotFound):
        stores.app_files.path(name)
    with pytest.raises(NotFound):
        stores.objects.get(name)
    assert stores.app_files.missing([name]) == [name]


def test_a_look_for_files_fetches_none(opened: Callable[[str], Stores], tmp_path: Path) -> None:
    opened("one").app_files.place(draft(tmp_path, b"file"), app_file(b"file"), MODE)
    before = files_below(tmp_path)
    assert opened("two").app_files.missing([app_file(b"file")]) == []
    assert files_below(tmp_path) == before


def test_a_wrong_hash_is_refused(stores: Stores, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="64 hexadecimal digits"):
        stores.app_files.place(draft(tmp_path, b"x"), "x", MODE)


async def test_what_nobody_needs_is_deleted_once_it_is_old(opened: Callable[[str], Stores], tmp_path: Path) -> None:
    stores = opened("one")
    needed, other = await stores.blobs.put(b"needed"), await stores.blobs.put(b"other")
    stores.app_files.place(draft(tmp_path, b"file"), app_file(b"file"), MODE)
    assert stores.blobs.forget({needed}, PAST) == 0
    assert stores.blobs.forget({needed}, FUTURE) == 1
    assert stores.app_files.forget((), FUTURE) == 1
    assert stores.blobs.path(needed).read_bytes() == b"needed"
    for each in (stores, opened("two")):
        with pytest.raises(NotFound):
            each.blobs.path(other)
        assert each.app_files.missing([app_file(b"file")])
    assert await stores.blobs.put(b"other") == other
    assert opened("three").blobs.path(other).read_bytes() == b"other"


async def test_a_use_keeps_content(stores: Stores) -> None:
    blob = await stores.blobs.put(b"x")
    await asyncio.to_thread(stores.blobs.discard, [blob, "0" * 64], PAST)
    assert stores.blobs.path(blob)
    await asyncio.to_thread(stores.blobs.discard, [blob, "0" * 64], FUTURE)
    with pytest.raises(NotFound):
        stores.blobs.path(blob)


async def test_what_another_controller_accepts_during_a_sweep_stays(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with environment(s3, monkeypatch):
        url = f"s3://{s3.bucket()}/x"
        two = in_bucket(Bucket(url), tmp_path / "two")
        before: list[datetime] = []

        class Frozen(Bucket):
            """Its lists end only after another controller accepted the same code."""

            def entries(self, prefix: str) -> Iterator[Entry]:
                found = list(super().entries(prefix))
                if not before or prefix.startswith("used/"):
                    return iter(found)
                asyncio.run(two.blobs.put(b"code"))
                return iter(found)

        frozen = Frozen(url)
        one = in_bucket(frozen, tmp_path / "one")
        blob = await one.blobs.put(b"code")
        put_at = frozen.changed_at(f"blobs/{blob}")
        assert put_at is not None
        # S3 knows whole seconds
        until(lambda: datetime.now(UTC) > put_at + timedelta(seconds=1.1), "the next second")
        before.append(put_at + timedelta(seconds=1))
        again = in_bucket(frozen, tmp_path / "one")
        assert await asyncio.to_thread(again.blobs.forget, (), before[0]) == 0
        assert in_bucket(Bucket(url), tmp_path / "three").blobs.path(blob).read_bytes() == b"code"


async def test_a_controller_that_may_be_replaced_deletes_no_code(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with environment(s3, monkeypatch):
        stores = in_bucket(Bucket(f"s3://{s3.bucket()}/x"), tmp_path, certain=lambda: False)
        blob = await stores.blobs.put(b"code")
        with pytest.raises(Unavailable, match="another controller may have the database"):
            stores.blobs.forget((), FUTURE)
        with pytest.raises(Unavailable, match="another controller may have the database"):
            stores.blobs.discard([blob], FUTURE)
        assert stores.blobs.path(blob).read_bytes() == b"code"


async def test_a_deletion_that_was_cut_off_is_ended(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with environment(s3, monkeypatch):
        bucket = Bucket(f"s3://{s3.bucket()}/x")
        blob = await in_bucket(bucket, tmp_path / "one").blobs.put(b"code")
        two = in_bucket(bucket, tmp_path / "two")
        assert await two.blobs.put(b"code") == blob  # which notes the use
        bucket.delete([f"blobs/{blob}"])
        assert list(bucket.entries("used")) != []
        assert in_bucket(bucket, tmp_path / "three").blobs.forget((), FUTURE) == 0
        assert list(bucket.entries("used")) == []


def test_all_files_of_an_account_are_deleted_whatever_the_clock_says(stores: Stores, tmp_path: Path) -> None:
    stores.app_files.place(draft(tmp_path, b"file"), app_file(b"file"), MODE)
    assert stores.app_files.forget((), datetime.max.replace(tzinfo=UTC)) == 1


def test_expired_files_and_those_of_an_account_are_deleted(stores: Stores, tmp_path: Path) -> None:
    other = AccountId("other")
    for object_id, expires_at, account in (
        ("e" * 32, FUTURE, LOCAL),
        ("k" * 32, None, LOCAL),
        ("l" * 32, FUTURE + timedelta(days=9), LOCAL),
        ("o" * 32, None, other),
    ):
        about = stored(object_id, expires_at=expires_at, account=account, size=1)
        stores.objects.place(draft(tmp_path, b"x"), about)
    assert stores.objects.forget(FUTURE) == 1
    assert stores.objects.forget_account(other) == 1
    assert stores.objects.forget(FUTURE) == 0
    for gone in "eo":
        with pytest.raises(NotFound):
            stores.objects.get(gone * 32)
    assert {stores.objects.get(left * 32)[0].object_id for left in "kl"} == {"k" * 32, "l" * 32}


def test_what_a_failed_upload_left_goes(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with environment(s3, monkeypatch):
        bucket = Bucket(f"s3://{s3.bucket()}/x")
        stores = in_bucket(bucket, tmp_path)
        stores.objects.place(draft(tmp_path, b"png"), stored())
        stores.objects.place(draft(tmp_path, b"png"), stored("b" * 32))
        bucket.delete([f"objects/{'b' * 32}"])
        assert stores.objects.forget(datetime.now(UTC)) == 0
        assert len(list(bucket.entries("objects-of"))) == 2, "it may be an upload in progress"
        assert stores.objects.forget(FUTURE) == 0
        assert [entry.name for entry in bucket.entries("objects-of")] == ["a" * 32]


async def test_a_missing_bucket_is_named(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with environment(s3, monkeypatch):
        bucket = Bucket("s3://not-made/x")
        stores = in_bucket(bucket, tmp_path)
    assert isinstance(bucket.check(), Refused)
    for call in (
        lambda: stores.blobs.path("0" * 64),
        lambda: stores.objects.get("a" * 32),
        bucket.entries("x").__next__,
    ):
        with pytest.raises(Unavailable, match="s3://not-made/x cannot be used; there is no such bucket: create it"):
            call()
    with pytest.raises(Unavailable, match="there is no such bucket"):
        await stores.blobs.put(b"x")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AWS_ENDPOINT_URL", "s3.example", "AWS_ENDPOINT_URL is no URL"),
        ("AWS_ENDPOINT_URL", "http://", "AWS_ENDPOINT_URL is no URL"),
        ("AWS_ENDPOINT_URL", "http://s3.example:port", "AWS_ENDPOINT_URL is no URL"),
        ("AWS_ENDPOINT_URL", "http://user:hunter2@s3.example", "AWS_ENDPOINT_URL is no URL without credentials"),
        ("AWS_ENDPOINT_URL", "", "AWS_ENDPOINT_URL is empty"),
        ("AWS_ENDPOINT_URL", "https://s3 example", "AWS_ENDPOINT_URL has a space"),
        ("AWS_ENDPOINT_URL", "http://\xe9.example", "AWS_ENDPOINT_URL has a space, or another character"),
        ("AWS_ACCESS_KEY_ID", "hunter2\n", "AWS_ACCESS_KEY_ID has a space, or another character"),
        ("AWS_SECRET_ACCESS_KEY", "", "AWS_SECRET_ACCESS_KEY is empty"),
        ("AWS_ENDPOINT", "s3.example", "AWS_ENDPOINT is no URL"),
        ("AWS_CHECKSUM_ALGORITHM", "md5", r'a variable AWS_\.\.\. is wrong \("md5" is not a valid checksum'),
        ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "maybe", r'is wrong \(failed to parse "maybe" as boolean\): correct'),
    ],
)
def test_a_wrong_variable_is_named(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    with environment(s3, monkeypatch):
        monkeypatch.setenv(name, value)
        with pytest.raises(Refused, match=said) as raised:
            Bucket("s3://box/x")
    assert "hunter2" not in raised.value.message


async def test_refused_credentials_are_said_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="1") as s3, environment(s3, monkeypatch):
        bucket = Bucket(f"s3://{s3.bucket()}/x")
        trouble = bucket.check()
        assert isinstance(trouble, Refused)
        assert "it refuses the credentials (" in trouble.message
        assert "AWS_SECRET_ACCESS_KEY" in trouble.message
        with pytest.raises(Unavailable, match="refuses the credentials") as raised:
            await in_bucket(bucket, tmp_path).blobs.put(b"x")
        assert SECRET not in f"{raised.value.message} {trouble.message} {bucket!r} {vars(bucket)}"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (301, "", "set that to the region of the bucket, then start again"),
        (301, "<Code>PermanentRedirect</Code>", "set that to the region of the bucket, then start again"),
        (400, "<Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region>", "set that to eu-west-1, then"),
        (400, "<Code>IllegalLocationConstraintException</Code>", "set that to the region of the bucket"),
    ],
)
async def test_a_bucket_of_another_region_is_said(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, status: int, body: str, said: str
) -> None:
    async with answering(status, f"<Error>{body}</Error>" if body else "") as endpoint:
        with environment(replace(s3, endpoint=endpoint), monkeypatch):
            trouble = await asyncio.to_thread(Bucket("s3://elsewhere").check)
    assert isinstance(trouble, Refused)
    assert "it is in another region than AWS_REGION (us-east-1): " in trouble.message
    assert said in trouble.message


async def test_a_bucket_that_answers_with_an_error_answers(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(400, "<Error><Code>InvalidRequest</Code></Error>") as endpoint:
        with environment(replace(s3, endpoint=endpoint), monkeypatch):
            trouble = await asyncio.to_thread(Bucket("s3://busy").check)
    assert trouble is not None
    assert not isinstance(trouble, Refused)
    assert "it answers InvalidRequest: try again; if that goes on, see AWS_ENDPOINT_URL" in trouble.message


@asynccontextmanager
async def answering(status: int, body: str) -> AsyncGenerator[str]:
    """Answer every request alike; yield the URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status} As said\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(f"{head}{body}".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_server_that_is_away_or_slow_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server() as s3, environment(s3, monkeypatch):
        url = f"s3://{s3.bucket()}/x"
        bucket = Bucket(url, silent_seconds=0.5)
        one, two = in_bucket(bucket, tmp_path / "one"), in_bucket(bucket, tmp_path / "two")
        blob = await one.blobs.put(b"here")
        s3.process.send_signal(signal.SIGSTOP)  # it accepts connections, and answers nothing
        trouble = bucket.check()
        assert trouble is not None
        assert not isinstance(trouble, Refused)
        assert "it does not answer (" in trouble.message
        with pytest.raises(Unavailable, match=r"it does not answer \(.*AWS_ENDPOINT_URL"):
            await one.blobs.put(b"not stored")
        with pytest.raises(Unavailable, match="it does not answer"):
            two.blobs.path(blob)
        assert one.blobs.path(blob).read_bytes() == b"here", "there is a copy"
        s3.process.send_signal(signal.SIGCONT)
        three, two = in_bucket(Bucket(url), tmp_path / "one"), in_bucket(Bucket(url), tmp_path / "two")
        assert two.blobs.path(blob).read_bytes() == b"here"
        again = await three.blobs.put(b"not stored")
        assert two.blobs.path(again).read_bytes() == b"not stored"
        s3.process.kill()
        with pytest.raises(Unavailable, match="it does not answer"):
            await one.blobs.put(b"another")


async def test_content_that_was_changed_in_the_bucket_is_refused(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with environment(s3, monkeypatch):
        name = s3.bucket()
        bucket = Bucket(f"s3://{name}/x")
        blob = await in_bucket(bucket, tmp_path / "one").blobs.put(b"code")
        bucket.put(f"blobs/{blob}", b"other code", {"mode": 0o600})
        two = in_bucket(bucket, tmp_path / "two")
        with pytest.raises(Unavailable, match=f"blobs/{blob} in s3://{name}/x was changed"):
            two.blobs.path(blob)
        assert files_below(tmp_path / "two") == []


async def test_an_answer_that_is_cut_off_leaves_no_copy(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        date = "Mon, 30 Nov 2026 20:00:00 GMT"
        writer.write(f"HTTP/1.1 200 OK\r\nLast-Modified: {date}\r\nETag: x\r\nContent-Length: 9\r\n\r\nhalf".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with environment(replace(s3, endpoint=f"http://127.0.0.1:{port}"), monkeypatch):
            stores = in_bucket(Bucket("s3://cut-off/x", silent_seconds=5), tmp_path)
            with pytest.raises(Unavailable, match="it does not answer"):
                await asyncio.to_thread(stores.blobs.path, "0" * 64)
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("damaged", [b"", b"eodc"])
async def test_a_copy_that_was_damaged_is_fetched_again(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bytes
) -> None:
    with environment(s3, monkeypatch):
        bucket = Bucket(f"s3://{s3.bucket()}/x")
        stores = in_bucket(bucket, tmp_path / "one")
        blob = await stores.blobs.put(b"code")
        stores.app_files.place(draft(tmp_path, b"file"), app_file(b"file", stat.S_IFREG | 0o050), stat.S_IFREG | 0o050)
        stores.objects.place(draft(tmp_path, b"png"), stored())
        for path in files_below(tmp_path / "one"):
            path.unlink()
            path.write_bytes(damaged)
        stores = in_bucket(bucket, tmp_path / "one")
        assert stores.blobs.path(blob).read_bytes() == b"code"
        assert stores.app_files.path(app_file(b"file", stat.S_IFREG | 0o050)).read_bytes() == b"file"
        assert stores.objects.get("a" * 32)[1].read_bytes() == b"png"


async def test_a_whole_copy_is_used_by_the_next_process(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with environment(s3, monkeypatch):
        bucket = Bucket(f"s3://{s3.bucket()}/x")
        modes = [stat.S_IFREG | mode for mode in (0o750, 0o050)]
        for mode in modes:
            in_bucket(bucket, tmp_path / "one").app_files.place(draft(tmp_path, b"f"), app_file(b"f", mode), mode)
        bucket.delete([f"app-files/local/{app_file(b'f', mode)}" for mode in modes])
        stores = in_bucket(bucket, tmp_path / "one")
        assert [stores.app_files.path(app_file(b"f", mode)).read_bytes() for mode in modes] == [b"f", b"f"]


def test_copies_of_deleted_accounts_go(tmp_path: Path) -> None:
    copies = Copies(tmp_path, may_be=lambda key: not key.startswith("app-files/gone/"))
    for key in ("app-files/gone/1", "app-files/gone/2", "app-files/local/1"):
        path = copies.take(key, draft(tmp_path, b"x"), 0o600)
        if not key.endswith("2"):  # which was used just now
            os.utime(path, (0, 0))
    copies.tidy()
    assert sorted(str(path.relative_to(tmp_path)) for path in files_below(tmp_path)) == [
        "app-files/gone/2",
        "app-files/local/1",
    ]


def test_copies_stay_within_their_size(tmp_path: Path) -> None:
    copies = Copies(tmp_path, most_bytes=25)
    for number in range(4):
        path = copies.take(f"some/{number}", draft(tmp_path, b"0123456789"), 0o600)
        os.utime(path, (number, number))
    assert copies.find("some/1", lambda _: True)
    copies.tidy()
    assert [copies.find(f"some/{number}", lambda _: True) is not None for number in range(4)] == [
        False,
        True,
        False,
        True,
    ]


@contextmanager
def environment(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have what a client of the server needs in the environment."""
    with monkeypatch.context() as changed:
        for name, value in s3.environment.items():
            changed.setenv(name, value)
        yield


def files_below(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]
