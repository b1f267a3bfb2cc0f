"""Repositories: the platform's, others with fake libraries, custom ones, and fallbacks."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from fal.app.context import CURRENT, RequestContext
from fal.toolkit import DownloadError, File, FileUploadException, Image
from fal.toolkit.exceptions import FileUploadFallbackException
from fal.toolkit.file import PendingFile, get_builtin_repository, request_lifecycle_preference
from fal.toolkit.file.providers.fal import FalFileRepositoryV3, InMemoryRepository
from fal.toolkit.file.providers.local import LocalFileRepository
from fal.toolkit.file.types import FileData, FileRepository
from tests.http.test_files import Desk
from tests.toolkit.test_toolkit import desk

assert desk

LIFECYCLE = "x-fal-object-lifecycle-preference"


class Asking:
    """A request with headers."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = headers


class Shelf(FileRepository):
    """An app's custom repository, which keeps what it was given."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.given: list[tuple[str, str, object]] = []

    def save(
        self,
        data: FileData,
        multipart: bool | None = None,
        multipart_threshold: int | None = None,
        multipart_chunk_size: int | None = None,
        multipart_max_concurrency: int | None = None,
        object_lifecycle_preference: Mapping[str, object] | None = None,
        shelf: str = "top",
    ) -> str:
        if self.broken:
            raise OSError(f"shelf {shelf} is full")
        self.given.append((data.file_name, shelf, object_lifecycle_preference))
        return f"https://shelf/{shelf}/{data.file_name}"


def test_an_apps_own_repository_gets_its_options_and_the_requests_wish() -> None:
    own = Shelf()
    asked = Asking({LIFECYCLE: '{"expiration_duration_seconds": 5}'})
    made = File.from_bytes(b"x", file_name="a.txt", repository=own, request=asked, save_kwargs={"shelf": "low"})
    assert (made.url, made.content_type, made.as_bytes()) == ("https://shelf/low/a.txt", "text/plain", b"x")
    assert own.given == [("a.txt", "low", {"expiration_duration_seconds": 5})]
    token = CURRENT.set(RequestContext(headers={LIFECYCLE: '{"expiration_duration_seconds": 6}'}))
    File.from_bytes(b"x", file_name="b.txt", repository=own)
    CURRENT.reset(token)
    assert own.given[-1] == ("b.txt", "top", {"expiration_duration_seconds": 6})
    assert "file_data" not in made.model_dump()
    assert "b'x'" not in repr(made)


def test_a_file_of_the_disk_goes_to_a_repository_that_only_takes_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"abc")
    own = Shelf()
    made = File.from_path(tmp_path / "a.bin", repository=own, save_kwargs={})
    assert (made.file_size, made.as_bytes(), own.given[0][0]) == (3, b"abc", "a.bin")


def test_a_repository_that_fails_is_followed_by_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    own = Shelf()
    full = Shelf(broken=True)
    image = Image.from_bytes(
        b"\x89PNG", "png", file_name="a.png", repository=full, fallback_repository=[full, own],
        save_kwargs={"shelf": "1"}, fallback_save_kwargs={"shelf": "2"},
    )  # fmt: skip
    assert image.url == "https://shelf/2/a.png"
    said = capsys.readouterr().err
    assert "Shelf: shelf 1 is full; trying the next repository" in said
    assert "Shelf: shelf 2 is full; trying the next repository" in said
    with pytest.raises(FileUploadFallbackException, match="shelf top is full; Shelf: shelf top is full"):
        File.from_bytes(b"x", repository=full, fallback_repository=full)
    with pytest.raises(OSError, match=r"^shelf top is full$"):
        File.from_bytes(b"x", repository=full, fallback_repository=None)


def test_names_of_repositories() -> None:
    assert get_builtin_repository("in_memory") == InMemoryRepository()
    assert get_builtin_repository("cdn") == get_builtin_repository("fal_v2") == FalFileRepositoryV3()
    own = Shelf()
    assert get_builtin_repository(own) is own
    with pytest.raises(ValueError, match="no repository 'none': use one of cdn, fal"):
        get_builtin_repository("none")  # type: ignore[arg-type]
    assert request_lifecycle_preference(Asking({LIFECYCLE: "{"})) is None
    assert request_lifecycle_preference(Asking({})) is None


async def test_saving_without_holding_up_others(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("of the disk")
    of_bytes, of_path, image = await asyncio.gather(
        File.from_bytes_async(b"of bytes", file_name="b.txt"),
        File.from_path_async(tmp_path / "a.txt"),
        Image.from_bytes_async(b"\x89PNG", "png"),
    )
    assert image.content_type == "image/png"
    for made, content in [(of_bytes, b"of bytes"), (of_path, b"of the disk")]:
        assert await asyncio.to_thread(File(url=made.url).as_bytes) == content


@pytest.mark.parametrize("by_socket", [True, False])
async def test_an_address_before_its_content(desk: Desk, monkeypatch: pytest.MonkeyPatch, by_socket: bool) -> None:
    if not by_socket:
        monkeypatch.setenv("FAL_USE_LOCAL_UPLOADER", "0")
        monkeypatch.setenv("FAL_REST_HOST", f"127.0.0.1:{desk.house.port}")
        monkeypatch.setenv("ISOLATE_TEST_MODE", "1")
    pending = await asyncio.to_thread(File.reserve, "text/plain", "later.txt")
    assert isinstance(pending, PendingFile)
    with pytest.raises(DownloadError):
        await asyncio.to_thread(File(url=pending.url).as_bytes)
    done = await asyncio.to_thread(pending.complete, b"here it is")
    assert (done.url, done.file_size, done.file_name) == (pending.url, 10, "later.txt")
    assert await asyncio.to_thread(File(url=pending.url).as_bytes) == b"here it is"
    given_up = await asyncio.to_thread(File.reserve, "text/plain")
    await asyncio.to_thread(given_up.abort)
    if by_socket:
        with pytest.raises(FileUploadException, match="404"):
            await asyncio.to_thread(given_up.complete, b"too late")


async def test_a_stream_of_unknown_length(desk: Desk) -> None:
    store = LocalFileRepository()
    chunks = (b"part %d " % number for number in range(3))
    url = await asyncio.to_thread(
        store.save_stream, chunks, "log.txt", "text/plain", {"expiration_duration_seconds": 5}
    )
    assert await asyncio.to_thread(File(url=url).as_bytes) == b"part 0 part 1 part 2 "
    desk.clock.advance(6)
    with pytest.raises(DownloadError, match="404"):
        await asyncio.to_thread(File(url=url).as_bytes)


async def test_a_socket_that_is_gone_is_followed_by_http(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAL_API_SOCKET", "/nowhere/api.sock")
    monkeypatch.setenv("FAL_REST_HOST", f"127.0.0.1:{desk.house.port}")
    monkeypatch.setenv("ISOLATE_TEST_MODE", "1")
    made = await asyncio.to_thread(File.from_bytes, b"x", file_name="a.txt")
    assert await asyncio.to_thread(File(url=made.url).as_bytes) == b"x"


LIBRARIES = {
    "boto3.py": """
import json
class Client:
    def __init__(self, **about): self.about = about
    def upload_fileobj(self, file, bucket, name, ExtraArgs):
        print(json.dumps(["put", bucket, name.partition("_")[2], file.read().decode(), ExtraArgs]))
    def generate_presigned_url(self, ClientMethod, Params, ExpiresIn):
        return f"{self.about['endpoint_url']}/{Params['Bucket']}?{ExpiresIn}"
class Resource:
    def Bucket(self, name): return f"bucket {name}"
def client(kind, **about):
    print(json.dumps([kind, about["aws_access_key_id"], about["aws_secret_access_key"]]))
    return Client(**about)
def resource(kind, **about): return Resource()
""",
    "botocore/client.py": "def Config(**options): return options\n",
    "google/cloud/storage.py": """
import json
class Blob:
    public_url = "https://public"
    def upload_from_string(self, data, content_type): print(json.dumps(["put", data.decode(), content_type]))
    def generate_signed_url(self, version, expiration, method): return f"https://signed?{expiration.total_seconds():.0f}"
class Bucket:
    def blob(self, name): print(json.dumps(["blob", name.partition("/")[0]])); return Blob()
class Client:
    @classmethod
    def from_service_account_info(cls, info): print(json.dumps(info)); return cls()
    def get_bucket(self, name): return Bucket()
""",
}

STORES = """
import json
from fal.toolkit.file.file import File
from fal.toolkit.file.providers.gcp import GoogleStorageRepository
from fal.toolkit.file.providers.r2 import R2Repository
from fal.toolkit.file.providers.s3 import S3Repository

def store(repository, **more):
    made = File.from_bytes(b"hi", "text/plain", "a.txt", repository, None, save_kwargs=more)
    print(json.dumps(made.url))

s3 = S3Repository("b", 60, "id", "shh")
store(s3, key="folder")
store("r2")
store(GoogleStorageRepository("b", None, '{"account": 1}', folder="there"))
store("gcp_storage")
shown = repr([s3, R2Repository(), GoogleStorageRepository()])
print(json.dumps("shh" in shown or "account" in shown.replace("_account", "")))
print(json.dumps(R2Repository().bucket))
"""


def with_libraries(directory: Path, python: Path | str, script: str) -> list[object]:
    """Return the output of a script with fake libraries."""
    for name, text in LIBRARIES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    account = {"ACCOUNT_ID": "acct", "ACCESS_KEY_ID": "kid", "SECRET_ACCESS_KEY": "shh"}
    done = subprocess.run(
        [python, "-c", script],
        env={
            **os.environ,
            "PYTHONPATH": str(directory),
            "R2_CREDS_JSON": json.dumps(account),
            "GCLOUD_SA_JSON": '{"account": 2}',
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


STORED = [
    ["s3", "id", "shh"],
    ["put", "b", "a.txt", "hi", {"ContentType": "text/plain"}],
    "None/b?60",
    ["s3", "kid", "shh"],
    ["put", "fal_file_storage", "a.txt", "hi", {"ContentType": "text/plain"}],
    "https://acct.r2.cloudflarestorage.com/fal_file_storage?900",
    {"account": 1},
    ["blob", "there"],
    ["put", "hi", "text/plain"],
    "https://public",
    {"account": 2},
]


def test_buckets_of_others_and_no_key_in_a_repr(tmp_path: Path) -> None:
    printed = with_libraries(tmp_path, sys.executable, STORES)
    assert printed[: len(STORED)] == STORED
    assert printed[-1] == "bucket fal_file_storage"
    assert printed[-3] is False
    assert "https://signed?54000" in printed


@pytest.mark.parametrize(
    ("made", "missing"),
    [
        (
            "s3 import S3Repository; S3Repository(aws_access_key_id='a')",
            "set AWS_SECRET",
        ),
        ("r2 import R2Repository; R2Repository()", "set R2_CREDS_JSON"),
        (
            "r2 import R2Repository; R2Repository(r2_account_json='{}')",
            "lacks ACCOUNT_ID",
        ),
        ("gcp import GoogleStorageRepository as G; G()", "set GCLOUD_SA_JSON"),
        (
            "gcp import GoogleStorageRepository as G; G(gcp_account_json='{}')",
            "add google",
        ),
        ("s3 import S3Repository as S; S('b', 1, 'a', 'b')", "add boto3"),
    ],
)
def test_what_a_bucket_lacks(made: str, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "R2_CREDS_JSON", "GCLOUD_SA_JSON"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "boto3", None)  # other tests need it installed
    with pytest.raises((ValueError, ImportError), match=missing):
        exec(f"from fal.toolkit.file.providers.{made}")
