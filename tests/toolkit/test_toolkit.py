"""The toolkit stores files by the socket or over HTTP. It keeps downloads, and its inputs may be addresses."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fal.app.context import CURRENT, RequestContext
from fal.toolkit import (
    Audio,
    DownloadError,
    File,
    FileUploadException,
    Image,
    ImageSize,
    Video,
    download_file,
    download_model_weights,
    get_image_size,
)
from fal.toolkit.utils import download_utils as kept
from fal_server.http.routes.uploader import UnixListener
from fal_server.http.server.asgi import AsgiAdapter
from tests.http.test_files import Desk, desk_at
from tests.support.keys_of_runners import runner_key

DATA = "data:text/plain;base64,aGVsbG8="


@pytest.fixture
async def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    """Return a controller's files, with this process set up as its runner."""
    async with desk_at(tmp_path / "c") as desk:
        door = UnixListener(AsgiAdapter(desk.uploader.app))
        await door.start(tmp_path / "api.sock")
        monkeypatch.setenv("FAL_USE_LOCAL_UPLOADER", "1")
        monkeypatch.setenv("FAL_API_SOCKET", str(tmp_path / "api.sock"))
        monkeypatch.setenv("FAL_KEY", runner_key(desk.tokens, "alive"))
        yield desk
        await door.close(1)


async def test_bytes_and_files_are_stored_by_the_socket(desk: Desk, tmp_path: Path) -> None:
    stored = await asyncio.to_thread(File.from_bytes, b"hello", file_name="a.txt")
    assert (stored.content_type, stored.file_name, stored.file_size) == ("text/plain", "a.txt", 5)
    assert await asyncio.to_thread(File(url=stored.url).as_bytes) == b"hello"
    source = tmp_path / "big.bin"
    source.write_bytes(b"z" * 3_000_000)
    large = await asyncio.to_thread(Video.from_path, source, "video/mp4")
    assert large.file_size == 3_000_000
    target = await large.save_async(tmp_path / "deep" / "out.mp4")
    assert target.read_bytes() == source.read_bytes()
    with pytest.raises(FileExistsError):
        large.save(target)
    image = await asyncio.to_thread(Image.from_bytes, b"\x89PNG", "png", ImageSize(width=3, height=4))
    assert (image.width, image.height, image.content_type) == (3, 4, "image/png")
    assert image.file_name
    assert image.file_name.endswith(".png")


async def test_the_request_says_how_long_its_files_are_kept(desk: Desk) -> None:
    lifecycle = {"x-fal-object-lifecycle-preference": '{"expiration_duration_seconds": 5}', "x-other": "no"}
    CURRENT.set(RequestContext(headers=lifecycle))
    stored = await asyncio.to_thread(File.from_bytes, b"x")
    desk.clock.advance(6)
    with pytest.raises(DownloadError, match="404"):
        await asyncio.to_thread(File(url=stored.url).as_bytes)


async def test_without_the_socket_files_go_over_http(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAL_USE_LOCAL_UPLOADER", "0")
    monkeypatch.setenv("FAL_REST_HOST", f"127.0.0.1:{desk.house.port}")
    monkeypatch.setenv("ISOLATE_TEST_MODE", "1")
    stored = await asyncio.to_thread(Audio.from_bytes, b"sound", "audio/wav")
    assert await asyncio.to_thread(File(url=stored.url).as_bytes) == b"sound"
    monkeypatch.setenv("FAL_KEY", "a:b")
    with pytest.raises(FileUploadException, match="401"):
        await asyncio.to_thread(File.from_bytes, b"x")
    monkeypatch.delenv("FAL_KEY")
    with pytest.raises(FileUploadException, match="set FAL_KEY"):
        File.from_bytes(b"x")


def test_a_socket_that_is_not_there_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAL_USE_LOCAL_UPLOADER", "1")
    monkeypatch.setenv("FAL_API_SOCKET", str(tmp_path / "none.sock"))
    with pytest.raises(FileUploadException, match="could not be stored"):
        File.from_bytes(b"x", file_name="a.txt")


def test_an_input_may_be_an_address_alone() -> None:
    assert File.model_validate(DATA).as_bytes() == b"hello"
    assert Image.model_validate({"url": "https://x/y.png", "width": 3}).width == 3
    with pytest.raises(ValueError, match="must be a URL"):
        File.model_validate("/etc/passwd")
    assert File.from_bytes(b"hi", "text/plain", repository="in_memory").url == "data:text/plain;base64,aGk="
    with pytest.raises(ValueError, match="no repository"):
        File.from_bytes(b"hi", repository="none")  # type: ignore[arg-type]


def test_image_sizes() -> None:
    assert get_image_size("landscape_16_9") == ImageSize(width=1024, height=576)
    assert get_image_size(ImageSize(width=8, height=8)).width == 8
    with pytest.raises(TypeError, match="not an image size"):
        get_image_size("huge")  # type: ignore[arg-type]


class Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, SiteServer)
        self.server.hits.append(self.path)
        body = b"weights" * 100
        self.send_response(200)
        length = len(body) + (10 if self.path == "/short" else 0)
        self.send_header("Content-Length", str(length))
        if self.path == "/named":
            self.send_header("Content-Disposition", 'attachment; filename="../../real name.bin"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


class SiteServer(ThreadingHTTPServer):
    """A site with weights, which records its requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Site)
        self.hits: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SiteServer]:
    monkeypatch.setattr(kept, "FAL_PERSISTENT_DIR", tmp_path / "data")
    monkeypatch.setattr(kept, "FAL_MODEL_WEIGHTS_DIR", tmp_path / "data" / "weights")
    with SiteServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_download_is_kept_whole_and_named_by_the_server(site: SiteServer, tmp_path: Path) -> None:
    path = download_file(f"{site.url}/w.bin?token=1", "models")
    assert path == tmp_path / "data" / "models" / "w.bin"
    assert path.read_bytes() == b"weights" * 100
    assert download_file(f"{site.url}/named", tmp_path / "x").name == "real name.bin"
    assert download_file(DATA, "models").read_text() == "hello"
    path.write_bytes(b"half")
    assert download_file(f"{site.url}/w.bin", "models").stat().st_size == 700
    for url, words in ((f"{site.url}/short", "cut off"), ("ftp://x/y", "no address"), (f"{site.url}/w", "allowed")):
        with pytest.raises(DownloadError, match=words):
            download_file(url, tmp_path / "y", filesize_limit=0 if words == "allowed" else None)
    assert list((tmp_path / "y").iterdir()) == []


def test_weights_are_downloaded_once(site: SiteServer, tmp_path: Path) -> None:
    url = f"{site.url}/w.bin"
    first = download_model_weights(url)
    assert first.parent == tmp_path / "data" / "weights" / hashlib.sha256(url.encode()).hexdigest()
    assert download_model_weights(url) == first
    assert site.hits == ["/w.bin"]
    download_model_weights(url, force=True)
    assert len(site.hits) == 2


def test_importing_it_costs_nothing_until_a_name_is_used() -> None:
    code = "import sys, fal.toolkit; print('pydantic' in sys.modules, 'urllib.request' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
