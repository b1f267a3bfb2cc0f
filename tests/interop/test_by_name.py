"""Tests fal_client without host variables. A proxy directs the cloud's host names to this controller, over TLS."""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import SAMPLES
from tests.interop.records import covers
from tests.support.connect_proxy import Proxy
from tests.support.controller import Controller, running
from tests.support.official import Official

# The published client's default hosts, which it uses without these variables.
NAMES = {"FAL_RUN_HOST": "fal.run", "FAL_QUEUE_RUN_HOST": "queue.fal.run", "FAL_REST_HOST": "rest.fal.ai"}


# A script: the first of these, then the code to show the result.
HEAD = """
import asyncio, io, json, sys
import fal_client
from PIL import Image
APP = "local/tiny"
IMAGE = Image.new("RGB", (3, 2))
def show(value):
    print(json.dumps(value))
"""


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Generator[Controller]:
    """A controller that speaks TLS alone."""
    with running(tmp_path_factory.mktemp("named"), "--tls", isolation="") as controller:
        yield controller


@pytest.fixture(scope="module")
def proxy(secure: Controller) -> Generator[Proxy]:
    proxy = Proxy(secure.port)
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def client(secure: Controller, python: Path, proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Official:
    """Return the official packages with an app and proxy, but no address."""
    home = tmp_path_factory.mktemp("named-home")
    authority = str(secure.state_dir / "tls" / "ca.pem")
    extra = {"ISOLATE_TEST_MODE": "0", "SSL_CERT_FILE": authority, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": authority}
    deployer = Official(python=python, home=home, host=f"localhost:{secure.port}", key=secure.key, extra=extra)
    deployer.fal("deploy", SAMPLES / "tiny.py", "--app-name", "tiny")
    named = {**extra, **NAMES, "HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}"}
    return Official(python=python, home=home, host="api.alpha.fal.ai", key=secure.key, extra=named)


@covers("run", "submit, status, result", "cancel", "stream", "realtime")
def test_by_the_names_that_are_built_in(client: Official, proxy: Proxy) -> None:
    script = """
ran = fal_client.run(APP, arguments={"text": "a "})
handle = fal_client.submit(APP, arguments={"text": "b "})
got = handle.get()
again = fal_client.result(APP, handle.request_id)
kind = type(fal_client.status(APP, handle.request_id, with_logs=True)).__name__
slow = fal_client.submit(APP, arguments={}, path="/slow")
slow.cancel()
streamed = [event["number"] for event in fal_client.stream(APP, arguments={"text": "s"})]
with fal_client.realtime(APP) as connection:
    connection.send({"text": "word"})
    spoken = connection.recv()["text"]
url = fal_client.upload(b"content", "text/plain")
show([url.startswith("https://"), ran["text"], got == again, kind, streamed, spoken])
"""
    assert client.script(HEAD + script) == [True, "a 1st", True, "Completed", [0, 1, 2], "WORD"]
    assert {"fal.run", "queue.fal.run", "rest.fal.ai", "v3.fal.media"} <= proxy.asked


def fetched(secure: Controller, url: str) -> tuple[bytes, str]:
    """Return the content at an address, and its type. No proxy or key is used."""
    trusting = ssl.create_default_context(cafile=str(secure.state_dir / "tls" / "ca.pem"))
    with urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusting)
    ).open(url, timeout=60) as answer:
        return answer.read(), answer.headers["content-type"]


def said(client: Official, script: str, *arguments: str) -> Any:
    return client.script(HEAD + script, *arguments)


@covers("upload, upload_file, upload_image")
@pytest.mark.parametrize("repository", ["fal_v3", "fal"])
def test_uploads(secure: Controller, client: Official, tmp_path: Path, repository: str) -> None:
    (tmp_path / "notes.txt").write_text("from a file")
    script = """
to = sys.argv[2]
client = fal_client.SyncClient()
show([
    client.upload(b"some bytes", "text/plain", repository=to),
    client.upload_file(sys.argv[1], repository=to),
    client.upload_image(IMAGE, format="png", repository=to),
])
"""
    check(secure, said(client, script, str(tmp_path / "notes.txt"), repository))


@covers("upload, upload_file, upload_image (asyncio)")
@pytest.mark.parametrize("repository", ["fal_v3", "fal"])
def test_uploads_with_asyncio(secure: Controller, client: Official, tmp_path: Path, repository: str) -> None:
    (tmp_path / "notes.txt").write_text("from a file")
    script = """
async def main():
    to = sys.argv[2]
    client = fal_client.AsyncClient()
    show([
        await client.upload(b"some bytes", "text/plain", repository=to),
        await client.upload_file(sys.argv[1], repository=to),
        await client.upload_image(IMAGE, format="png", repository=to),
    ])

asyncio.run(main())
"""
    check(secure, said(client, script, str(tmp_path / "notes.txt"), repository))


def check(secure: Controller, urls: list[str]) -> None:
    text, file, image = urls
    assert all(url.startswith(f"https://{secure.host}/") for url in urls)
    assert fetched(secure, text) == (b"some bytes", "text/plain")
    assert fetched(secure, file) == (b"from a file", "text/plain")
    assert file.endswith("/notes.txt")
    content, kind = fetched(secure, image)
    assert (content[:4], kind) == (b"\x89PNG", "image/png")


@covers("upload, upload_file, upload_image", "upload, upload_file, upload_image (asyncio)")
def test_what_is_large_is_uploaded_in_parts(secure: Controller, client: Official, tmp_path: Path) -> None:
    size = 100 * 1024 * 1024 + 5
    with (tmp_path / "large.bin").open("wb") as large:
        large.truncate(size)
    script = """
settings = fal_client.StorageSettings(expires_in="1h")
first = fal_client.SyncClient().upload_file(sys.argv[1], lifecycle=settings)
second = asyncio.run(fal_client.AsyncClient().upload_file(sys.argv[1]))
show([first, second])
"""
    for url in said(client, script, str(tmp_path / "large.bin")):
        content, kind = fetched(secure, url)
        assert (len(content), content.count(0), kind) == (size, size, "application/octet-stream")


@covers("ws_connect", "realtime_async, ws_connect (asyncio)")
def test_websockets_by_token(client: Official) -> None:
    script = """
from fal_client.client import msgpack_decode_message, msgpack_encode_message
sync, other = fal_client.SyncClient(), fal_client.AsyncClient()
said = []
with sync.ws_connect(APP, path="/realtime") as socket:
    socket.send(msgpack_encode_message({"text": "one"}))
    said.append(msgpack_decode_message(socket.recv())["text"])

async def main():
    async with other.ws_connect(APP, path="/realtime") as socket:
        await socket.send(msgpack_encode_message({"text": "two"}))
        said.append(msgpack_decode_message(await socket.recv())["text"])
    async with fal_client.realtime_async(APP) as connection:
        await connection.send({"text": "three"})
        said.append((await connection.recv())["text"])

asyncio.run(main())
show(said)
"""
    assert said(client, script) == ["ONE", "TWO", "THREE"]
