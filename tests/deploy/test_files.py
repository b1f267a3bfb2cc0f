"""The files of an app: their selection, hashes and upload."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fal.api import AsyncServerlessClient, SyncServerlessClient
from fal.deploy.errors import AppFileError, UploadError
from fal.deploy.files import collect_files, context_dir
from fal.deploy.preparation import prepare
from fal.deploy.upload import PART_BYTES, FileStore
from fal.deploy.upload_aio import AsyncFileStore

IGNORED = [r"\.pyc$", r"__pycache__/"]


@pytest.fixture
def place(tmp_path):
    for name, text in {
        "data/a.txt": "a",
        "data/sub/b.txt": "b",
        "data/c.pyc": "",
        "one.txt": "1",
        "app.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_directories_with_all_that_is_in_them(place):
    files = collect_files(
        ["data", "one.txt", "app.py", "./data/a.txt"], place, ignore=IGNORED, leave_out=place / "app.py"
    )
    assert [file.relative_path for file in files] == ["data/a.txt", "data/sub/b.txt", "one.txt"]


def test_hash_is_of_content_and_mode(place):
    (place / "one.txt").chmod(0o644)
    [file] = collect_files(["one.txt"], place)
    assert file.mode == 0o100644
    assert file.hash == hashlib.sha256(b"1" + b"33188").hexdigest()
    (place / "one.txt").chmod(0o755)
    assert collect_files(["one.txt"], place)[0].hash == hashlib.sha256(b"1" + b"33261").hexdigest()


@pytest.mark.parametrize(
    ("names", "ignore", "words"),
    [(["none"], [], "there is no"), (["../"], [], "is outside of"), (["one.txt"], ["["], "not a regular expression")],
)
def test_what_cannot_be_sent(place, names, ignore, words):
    (place.parent / "outside.txt").touch()
    with pytest.raises(AppFileError) as caught:
        collect_files(names, place, ignore=ignore)
    assert words in str(caught.value)


def test_the_context_is_the_apps_directory_or_as_given(place):
    assert context_dir(place / "data" / "x.py", None) == place / "data"
    assert context_dir(place / "data" / "x.py", "..") == place


def test_files_of_an_app(place, monkeypatch):
    monkeypatch.chdir(place)
    (place / "app.py").write_text(
        "import fal\n\nclass One(fal.App):\n    app_files = ['data']\n\n"
        "    @fal.endpoint('/')\n    def run(self) -> str: ...\n"
    )
    assert [file.relative_path for file in prepare("app.py").files] == ["data/a.txt", "data/sub/b.txt"]


class Store:
    """A controller's store of files, as HTTP."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.refuse: tuple[int, str] | None = None
        self._parts: dict[str, dict[int, bytes]] = {}
        self._lock = threading.Lock()
        store = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None: ...

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.headers["Authorization"] == "Key id:secret"
                status, answer = (store.refuse[0], {"detail": store.refuse[1]}) if store.refuse else (200, None)
                if answer is None:
                    answer = store.handle(self.path, body)
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_POST = do_PUT = _answer  # noqa: N815

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def handle(self, path: str, body: bytes) -> object:
        with self._lock:
            self.calls.append(path)
            if path == "/files/missing_hashes":
                return [name for name in json.loads(body)["hashes"] if name not in self.files]
            _, _, _, _, name, *rest = path.split("/")
            if rest == ["initiate"]:
                about = json.loads(body)
                assert set(about) == {"size", "mtime", "mode", "hash"}
                assert all(isinstance(value, str) for value in about.values())
                return {"upload_id": f"up-{name[:4]}"}
            if rest[1:] == ["complete"]:
                parts = [part["part_number"] for part in json.loads(body)["parts"]]
                self.files[name] = b"".join(self._parts[name][number] for number in parts)
                return {"etag": ""}
            content = re.search(rb'name="file_upload".*?\r\n\r\n(.*)\r\n--[0-9a-f]+--\r\n$', body, re.DOTALL)
            assert content is not None
            self._parts.setdefault(name, {})[int(rest[1])] = content[1]
            return {"part_number": int(rest[1]), "etag": "e"}

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def store() -> Iterator[Store]:
    started = Store()
    yield started
    started.close()


class AsyncFiles:
    """Uploads on the asyncio side."""

    def __init__(self, host: str) -> None:
        self.host = host

    def ensure(self, files):
        async def awaited():
            async with AsyncServerlessClient(host=self.host, api_key="id:secret") as client:
                return await AsyncFileStore(await client.rest()).ensure(files)

        return asyncio.run(awaited())


@pytest.fixture(params=["blocking", "asyncio"])
def files(request, store, monkeypatch, tmp_path):
    monkeypatch.setenv("FAL_CONFIG_PATH", str(tmp_path / "config.toml"))
    host = f"127.0.0.1:{store.server.server_port}"
    if request.param == "asyncio":
        yield AsyncFiles(host)
        return
    with SyncServerlessClient(host=host, api_key="id:secret") as client:
        yield FileStore(client.rest())


def test_only_what_is_missing_is_sent_and_once(place, store, files):
    (place / "empty").touch()
    (place / "twin.txt").write_text("1")
    collected = collect_files(["one.txt", "twin.txt", "empty"], place)
    assert {file.relative_path for file in files.ensure(collected)} <= {"one.txt", "twin.txt", "empty"}
    assert sorted(store.files.values()) == [b"", b"1"]
    assert files.ensure(collected) == []


def test_large_files_go_in_parts(place, store, files):
    content = bytes(range(256)) * (PART_BYTES // 256) + b"the rest"
    (place / "large").write_bytes(content)
    files.ensure(collect_files(["large"], place))
    assert list(store.files.values()) == [content]
    assert sum("/up-" in call for call in store.calls) == 3  # two parts, and the completion


def test_a_refusal_names_the_file_and_the_reason(place, store, files):
    store.refuse = (403, "no room")
    with pytest.raises(UploadError, match="could not be sent: no room"):
        files.ensure(collect_files(["one.txt"], place))
