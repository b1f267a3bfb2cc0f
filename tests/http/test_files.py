"""Files over HTTP: /data, apps' files, public files and the runners' socket. Servers and disk are real."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from fal_server.access.audit import Recorder
from fal_server.access.authentication import Authenticator
from fal_server.access.tokens import Tokens
from fal_server.core.accounts import Account, EachAccount, KnownAccounts
from fal_server.core.faults import ResourceExhausted
from fal_server.core.identity import LOCAL, Scope
from fal_server.http.outbound.destinations import Destinations
from fal_server.http.outbound.fetching import UrlFetcher
from fal_server.http.routes.account import AccountRoutes
from fal_server.http.routes.files import AppFileRoutes, FileRoutes
from fal_server.http.routes.guard import Guard
from fal_server.http.routes.rest import rest_app
from fal_server.http.routes.storage import StorageRoutes
from fal_server.http.routes.tokens import TokenRoutes
from fal_server.http.routes.uploader import UnixListener, Uploader
from fal_server.http.server.asgi import AsgiAdapter
from fal_server.services.files import AppFiles, Files
from fal_server.services.keys import Keys
from fal_server.services.objects import Objects
from fal_server.store.files.app_files import DiskAppFiles
from fal_server.store.files.data_directory import DataDirectory
from fal_server.store.files.objects import DiskObjects
from fal_server.store.files.uploads import StagingDirectory
from tests.fakes.accounts import accounts_of, quotas_of, teams_of
from tests.fakes.domain import app_id
from tests.fakes.platform import Platform, opened
from tests.http.support import Server, running_server
from tests.support.keys_of_runners import runner_key

ACCOUNTS = KnownAccounts([Account(nickname="me")])


class Gpus:
    def gpus_by_app(self, scope: Scope) -> dict[str, dict[str, int]]:
        return {"one": {"GPU-H100": 2}, "two": {"GPU-H100": 1, "GPU-L40": 4}}


class NoRevisions:
    """No test here asks for the metadata of an app."""


class Desk:
    """Everything about files behind a real server. Its client's key has every permission."""

    def __init__(self, root: Path, platform: Platform) -> None:
        self.root, self.platform, self.clock = root, platform, platform.clock
        store = platform.store
        self.access = Authenticator(store, self.clock)
        self.keys = Keys(store, self.clock, self.access)
        self.tokens = Tokens(bytes(32), store, self.clock, lambda runner: LOCAL if runner == "alive" else None)
        drafts = StagingDirectory(root / "incoming")
        self.data = DataDirectory(root / "data")
        self.app_files = DiskAppFiles(root / "app-files")
        self.objects = Objects(DiskObjects(root / "objects"), drafts, self.clock, timedelta(days=1))
        recorder = Recorder(store.audit, self.clock, bytes(32))
        guard = self.guard = Guard(self.access, self.tokens, teams_of(self.access, self.tokens, ACCOUNTS), recorder)
        app_files = AppFiles(self.app_files, drafts, self.clock)
        data = Files(self.data, UrlFetcher(Destinations([ip_network("127.0.0.0/8")])), self.clock)
        account = AccountRoutes(
            cast("Any", Gpus()), cast("Any", NoRevisions()), accounts_of(ACCOUNTS), quotas_of(ACCOUNTS), ACCOUNTS, guard
        )
        self.routes = [
            *AppFileRoutes(EachAccount(lambda _: app_files), guard).routes,
            *StorageRoutes(self.objects, self.tokens, guard, "http://door.example:7400").routes,
            *TokenRoutes(self.tokens, guard).routes,
            *account.routes,
            *FileRoutes(EachAccount(lambda _: data), guard).routes,
        ]
        self.house: Server
        self.client: httpx.AsyncClient

    @property
    def uploader(self) -> Uploader:
        return Uploader(self.objects, self.guard, f"http://127.0.0.1:{self.house.port}")

    async def key(self, *permissions: str) -> dict[str, str]:
        """Return the header of a new key. The key may do everything if nothing is listed."""
        key_id, secret = await self.keys.create(None, permissions=permissions or None, alias="")
        return {"authorization": f"Key {key_id}:{secret}"}

    async def put(self, path: str, content: bytes, **params: str) -> httpx.Response:
        files = {"file_upload": ("name", content)}
        return await self.client.post(f"/files/file/local/{path}", files=files, params=params)


@asynccontextmanager
async def desk_at(root: Path) -> AsyncGenerator[Desk, None]:
    async with opened(root) as platform:
        desk = Desk(root, platform)
        rest = rest_app(guard=desk.guard, accounts=ACCOUNTS, version="1", routes=desk.routes)
        async with running_server(rest=rest) as desk.house:
            base = f"http://127.0.0.1:{desk.house.port}"
            headers = await desk.key()
            async with httpx.AsyncClient(base_url=base, headers=headers, timeout=20, trust_env=False) as desk.client:
                yield desk


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk_at(tmp_path) as desk:
        yield desk


async def test_files_are_put_listed_read_renamed_and_deleted(desk: Desk) -> None:
    content = bytes(range(256)) * 5000
    assert (await desk.put("/data/dir/a b%.bin", content)).json() is True
    (entry,) = (await desk.client.get("/files/list//data/dir")).json()
    assert (entry["path"], entry["size"], entry["is_file"]) == ("/data/dir/a b%.bin", len(content), True)
    url = "/files/file//data/dir/a%20b%25.bin"
    assert (await desk.client.get(url)).content == content
    part = await desk.client.get(url, headers={"range": "bytes=256-511"})
    assert (part.status_code, part.content) == (206, bytes(range(256)))
    head = await desk.client.head(url)
    assert (head.headers["content-length"], head.content) == (str(len(content)), b"")
    renamed = await desk.client.post("/files/rename//data/dir", json={"destination": "/data/new"})
    assert renamed.json() is True
    assert [e["name"] for e in (await desk.client.get("/files/list//data")).json()] == ["new"]
    assert (await desk.client.delete("/files/file//data/new")).json() is True
    assert (await desk.client.get("/files/list//data/new")).json() == []
    assert (await desk.client.get("/files/list//data/new?strict=true")).status_code == 404
    assert list((desk.root / "data" / ".fal-drafts").iterdir()) == []


async def test_a_change_is_recorded_with_its_caller_its_address_and_its_request(desk: Desk) -> None:
    answer = await desk.client.delete("/files/file//data/none")
    await desk.client.get("/files/list//data")
    [row] = await desk.platform.store.audit.newest(LOCAL, None, None, 10)
    entry = row.entry
    assert (entry.action, entry.target) == ("DELETE /files/file/{path:path}", "path=/data/none")
    assert entry.key_id in desk.client.headers["authorization"]
    assert entry.source.startswith("127.0.0.1:")
    assert entry.request_id == answer.headers["x-fal-request-id"] != ""


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/files/file//data/none", 404),
        ("GET", "/files/file//data/%2e%2e/x", 400),
        ("GET", "/files/file//etc/passwd", 400),
        ("GET", "/files/file//data/a%00b", 400),
        ("DELETE", "/files/file//data", 400),
        ("POST", "/files/file/local//data/x", 400),
        ("POST", "/files/file/url//data/x", 400),
        ("POST", "/files/rename//data/x", 400),
        ("POST", "/files/file/multipart//data/x/0123/complete", 404),
        ("PUT", "/files/app/multipart/ab/cd/1", 404),
        ("POST", "/files/app/multipart/ab/initiate", 400),
        ("POST", "/files/missing_hashes", 400),
        ("POST", "/tokens/", 400),
        ("GET", "/storage/f/AAAAAAAAAAAAAAAAAAAAAAAA/x", 404),
        ("PUT", "/storage/upload/none", 404),
    ],
)
async def test_refusals_have_a_status_and_a_detail(desk: Desk, method: str, path: str, status: int) -> None:
    answer = await desk.client.request(method, path)
    assert (answer.status_code, bool(answer.json()["detail"])) == (status, True)


async def test_a_large_file_comes_in_parts_in_any_order(desk: Desk) -> None:
    parts = [b"a" * 1_500_000, b"b" * 1_500_000, b"c"]
    base = "/files/file/multipart//data/large.bin"
    upload = f"{base}/{(await desk.client.post(f'{base}/initiate')).json()['upload_id']}"
    for number in (3, 1, 2):
        answer = await desk.client.put(f"{upload}/{number}", files={"file_upload": ("chunk", parts[number - 1])})
        assert answer.json() == {"part_number": number, "etag": hashlib.md5(parts[number - 1]).hexdigest()}
    done = await desk.client.post(f"{upload}/complete", json={"parts": []})
    assert done.json()["etag"] == hashlib.md5(b"".join(parts)).hexdigest()
    assert (desk.root / "data" / "large.bin").read_bytes() == b"".join(parts)
    assert (await desk.client.post(f"{upload}/complete", json={"parts": []})).status_code == 404


async def test_an_upload_that_lacks_a_part_is_not_completed_and_can_be_cancelled(desk: Desk) -> None:
    base = "/files/file/multipart//data/x"
    upload = f"{base}/{(await desk.client.post(f'{base}/initiate')).json()['upload_id']}"
    await desk.client.put(f"{upload}/2", files={"file_upload": ("c", b"x")})
    assert "part 1 is missing" in (await desk.client.post(f"{upload}/complete", json={})).json()["detail"]
    assert (await desk.client.put(f"{upload}/0", files={"file_upload": ("c", b"x")})).status_code == 400
    assert (await desk.client.post(f"{upload}/cancel")).status_code == 200
    assert not (desk.root / "data" / "x").exists()
    assert list((desk.root / "data" / ".fal-drafts").iterdir()) == []


async def test_a_directory_is_synchronized_by_its_hash(desk: Desk) -> None:
    check = "/files/dir/check_hash/sync/dir"
    assert (await desk.client.post(check, json={"hash": "abc"})).json() is False
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(".fal_hash", "abc")
        archive.writestr("deep/x.txt", "x")
    assert (await desk.put("sync/dir", packed.getvalue(), unzip="True")).status_code == 200
    assert (await desk.client.post(check, json={"hash": "abc"})).json() is True
    assert (await desk.client.post(check, json={"hash": "other"})).json() is False
    assert (desk.root / "data" / "sync" / "dir" / "deep" / "x.txt").read_text() == "x"


async def test_the_controller_fetches_an_address(desk: Desk) -> None:
    url = f"http://127.0.0.1:{desk.house.port}"
    assert (await desk.client.post("/files/file/url//data/h.json", json={"url": f"{url}/health"})).json() is True
    assert b"ok" in (desk.root / "data" / "h.json").read_bytes()
    for bad, status in (
        (f"{url}/nothing", 400),
        ("file:///etc/passwd", 400),
        ("http://[", 400),
        ("http://127.0.0.1:1/", 503),
    ):
        answer = await desk.client.post("/files/file/url//data/no", json={"url": bad})
        assert answer.status_code == status, answer.text
    assert not (desk.root / "data" / "no").exists()


async def test_addresses_of_this_machine_are_not_fetched(desk: Desk) -> None:
    from fal_server.core.faults import InvalidArgument

    for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "169.254.169.254", "0.0.0.0"):
        with pytest.raises(InvalidArgument, match="upload the file instead"):
            async with UrlFetcher(Destinations()).fetch(f"http://{host}:{desk.house.port}/health"):
                pass


async def test_an_apps_file_is_kept_with_its_mode_if_it_is_what_its_hash_says(desk: Desk) -> None:
    content, mode = b"#!/bin/sh\n", 0o100755
    name = hashlib.sha256(content + str(mode).encode()).hexdigest()
    assert (await desk.client.post("/files/missing_hashes", json={"hashes": [name, name]})).json() == [name]
    about = {"size": str(len(content)), "mtime": "1.0", "mode": str(mode), "hash": name}

    async def send(body: bytes) -> httpx.Response:
        base = f"/files/app/multipart/{name}"
        upload = f"{base}/{(await desk.client.post(f'{base}/initiate', json=about)).json()['upload_id']}"
        assert (await desk.client.put(f"{upload}/1", files={"file_upload": ("f", body)})).status_code == 200
        return await desk.client.post(f"{upload}/complete", json={"parts": [], "metadata": about})

    wrong = await send(b"something else")
    assert (wrong.status_code, "send it again" in wrong.json()["detail"]) == (400, True)
    assert (await send(content)).status_code == 200
    assert (await desk.client.post("/files/missing_hashes", json={"hashes": [name]})).json() == []
    assert desk.app_files.path(name).read_bytes() == content
    assert desk.app_files.path(name).stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    ("method", "path", "permission"),
    [
        ("GET", "/files/list//data", "serverless:files:read"),
        ("GET", "/files/file//data/x", "serverless:files:read"),
        ("POST", "/files/file/local//data/x", "serverless:files:write"),
        ("DELETE", "/files/file//data/x", "serverless:files:write"),
        ("POST", "/files/missing_hashes", "serverless:revisions:write"),
        ("GET", "/applications/metrics", "serverless:metrics:read"),
        ("GET", "/users/teams", "account:read"),
        ("POST", "/storage/upload/initiate", "serverless:apps:run"),
        ("POST", "/files/upload", "serverless:apps:run"),
        ("POST", "/tokens/", "serverless:apps:run"),
    ],
)
async def test_a_key_needs_the_permission(desk: Desk, method: str, path: str, permission: str) -> None:
    allowed, other = await desk.key(permission), await desk.key("keys:read")
    assert (await desk.client.request(method, path, headers=other)).status_code == 403
    assert (await desk.client.request(method, path, headers=allowed)).status_code not in (401, 403)
    for wrong in ("", "Key a:b", "Bearer x.y.z", "Key runner.alive:00", "Bearer"):
        answer = await desk.client.request(method, path, headers={"authorization": wrong})
        assert answer.status_code == 401


async def test_metrics_and_teams(desk: Desk) -> None:
    found = (await desk.client.get("/applications/metrics")).json()
    assert found["summary"] == {"total_gpu_by_type": {"GPU-H100": 3, "GPU-L40": 4}}
    assert found["apps"]["me/two"] == {"gpu_count_by_type": {"GPU-H100": 1, "GPU-L40": 4}}
    (team,) = (await desk.client.get("/users/teams")).json()
    assert (team["nickname"], team["is_personal"]) == ("me", True)


async def test_a_file_is_uploaded_and_fetched_without_a_key_until_it_expires(desk: Desk) -> None:
    headers = {"content-type": "image/png", "x-fal-file-name": "../my pic.png"}
    url = (await desk.client.post("/files/upload", content=b"png" * 100, headers=headers)).json()["access_url"]
    assert url.endswith("/my_pic.png")
    async with httpx.AsyncClient(trust_env=False) as anybody:
        answer = await anybody.get(url)
        assert (answer.content, answer.headers["content-type"]) == (b"png" * 100, "image/png")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "content-security-policy" not in answer.headers
        ranged = await anybody.get(url, headers={"range": "bytes=0-2"})
        assert (ranged.status_code, ranged.content) == (206, b"png")
        assert (await anybody.head(url)).headers["content-length"] == "300"
        assert (await anybody.get(url.replace("my_pic", "other"))).status_code == 404
        desk.clock.advance(86401)
        assert (await anybody.get(url)).status_code == 404
    assert await desk.objects.forget() == 1
    assert list((desk.root / "objects").glob("*/*")) == []


async def test_a_request_says_how_long_its_file_is_kept(desk: Desk) -> None:
    async def upload(lifecycle: str) -> httpx.Response:
        return await desk.client.post("/files/upload", content=b"x", headers={"x-fal-object-lifecycle": lifecycle})

    short = (await upload('{"expiration_duration_seconds": 60}')).json()["access_url"]
    kept = (await upload('{"expiration_duration_seconds": null}')).json()["access_url"]
    for wrong in ("{", '{"expiration_duration_seconds": 0}', '{"expiration_duration_seconds": "soon"}'):
        assert (await upload(wrong)).status_code == 400
    desk.clock.advance(61)
    assert (await desk.client.get(short)).status_code == 404
    desk.clock.advance(10**8)
    page = await desk.client.get(kept)
    assert page.status_code == 200
    assert "sandbox" in page.headers["content-security-policy"]


async def test_a_file_uploaded_by_a_name_of_the_cloud_is_fetched_at_the_controllers_own(desk: Desk) -> None:
    through = {"host": "v3.fal.media"}
    url = (await desk.client.post("/files/upload", content=b"x", headers=through)).json()["access_url"]
    started = (await desk.client.post("/storage/upload/initiate", json={}, headers={"host": "rest.fal.ai:443"})).json()
    parts = (await desk.client.post("/files/upload/multipart", headers=through)).json()["access_url"]
    for address in (url, started["file_url"], parts):
        assert address.startswith("http://door.example:7400/storage/f/")
    assert (await desk.client.get(url.partition(":7400")[2])).content == b"x"
    refused = await desk.client.post("/files/upload", content=b"x", headers={"host": "a b"})
    assert refused.status_code == 400


async def test_the_ways_of_the_published_clients_to_upload(desk: Desk) -> None:
    about = {"file_name": "a.txt", "content_type": "text/plain"}
    started = (await desk.client.post("/storage/upload/initiate?storage_type=gcs", json=about)).json()
    async with httpx.AsyncClient(trust_env=False) as anybody:
        assert (await anybody.put(started["upload_url"], content=b"whole")).status_code == 200
        fetched = await anybody.get(started["file_url"])
        assert (fetched.text, fetched.headers["content-type"]) == ("whole", "text/plain")

        started = (await desk.client.post("/storage/upload/initiate-multipart", json=about)).json()
        place = (await anybody.post(f"{started['upload_url']}/1")).json()["upload_url"]
        assert (await anybody.put(place, content=b"one ")).headers["etag"]
        assert (await anybody.put(f"{started['upload_url']}/2", content=b"two")).headers["etag"]
        assert (await anybody.get(started["file_url"])).status_code == 404
        assert (await anybody.post(f"{started['upload_url']}/complete", json={"parts": []})).status_code == 200
        assert (await anybody.get(started["file_url"])).text == "one two"

        token = (await desk.client.post("/storage/auth/token?storage_type=fal-cdn-v3", json={})).json()
        bearer = {"authorization": f"{token['token_type']} {token['token']}", "x-fal-file-name": "b.bin"}
        started = (await anybody.post(f"{token['base_url']}/files/upload/multipart", headers=bearer)).json()
        part = f"{started['access_url']}/multipart/{started['uploadId']}"
        assert (await anybody.put(f"{part}/1", content=b"cdn", headers=bearer)).headers["etag"]
        assert (await anybody.post(f"{part}/complete", json={"parts": []}, headers=bearer)).status_code == 200
        assert (await anybody.get(started["access_url"])).content == b"cdn"
        assert (await anybody.get(f"{token['base_url']}/files/list//data", headers=bearer)).status_code == 401


async def test_a_runner_stores_files_over_its_socket(desk: Desk, tmp_path: Path) -> None:
    door = UnixListener(AsgiAdapter(desk.uploader.app))
    await door.start(tmp_path / "api.sock")
    key = {"authorization": f"Key {runner_key(desk.tokens, 'alive')}", "x-fal-file-name": "o.txt"}
    transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "api.sock"))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=key) as runner:
        done = await runner.post("/v1/uploads", content=b"made", headers={"content-type": "text/plain"})
        assert (done.status_code, done.json()["state"]) == (202, "accepted_local")
        assert (await desk.client.get(done.json()["file_url"])).text == "made"
        status = await runner.get(f"/v1/uploads/{done.json()['upload_id']}", params={"wait": 60})
        assert status.json() == {"state": "completed"}
        assert (await runner.get("/v1/uploads/AAAAAAAAAAAAAAAAAAAAAAAA")).status_code == 404

        started = (await runner.post("/v1/upload-sessions")).json()
        assert started["state"] == "receiving"
        session = f"/v1/upload-sessions/{started['upload_id']}"
        assert (await runner.put(f"{session}/body", content=b"streamed")).status_code == 204
        assert (await runner.post(f"{session}/finish", json={"size_bytes": 3})).status_code == 400
        assert (await runner.post(f"{session}/finish", json={"size_bytes": 8})).status_code == 202
        assert (await desk.client.get(started["file_url"])).content == b"streamed"
        assert (await runner.delete(session)).status_code == 202

        dead = {"authorization": f"Key {runner_key(desk.tokens, 'dead')}"}
        assert (await runner.post("/v1/uploads", content=b"x", headers=dead)).status_code == 401
    await door.close(1)


async def test_an_upload_that_breaks_off_leaves_nothing(desk: Desk) -> None:
    reader, writer = await desk.house.connect()
    auth = desk.client.headers["authorization"]
    head = f"POST /files/upload HTTP/1.1\r\nHost: h\r\nAuthorization: {auth}\r\nContent-Length: 1000000\r\n\r\n"
    writer.write(head.encode() + b"x" * 5000)
    await writer.drain()
    writer.close()
    assert await reader.read() == b""
    assert (await desk.client.get("/health")).status_code == 200
    assert list((desk.root / "objects").iterdir()) == []


async def test_a_token_opens_a_websocket_of_its_app_alone(desk: Desk) -> None:
    token = (await desk.client.post("/tokens/", json={"allowed_apps": ["hello"], "token_expiration": 60})).json()
    assert await desk.tokens.caller(token, "local", app_id("hello"))
    assert await desk.tokens.caller(token, "local", app_id("other")) is None


MALFORMED = [
    b"[" * 200_000,
    b'{"a": ' * 50_000,
    b'"\\ud800"',
    b'{"hash": "\\ud800"}',
    b"NaN",
    b"9" * 5000,
    b"\xff",
    b"[]",
]


@pytest.mark.parametrize(
    "path",
    ["/tokens/", "/storage/upload/initiate", "/files/missing_hashes", "/files/rename//data/x",
     "/files/file/url//data/x",
     "/files/dir/check_hash/x", f"/files/app/multipart/{'0' * 64}/initiate"],
)  # fmt: skip
async def test_a_body_that_is_not_a_json_object_is_the_callers_fault(desk: Desk, path: str) -> None:
    for body in MALFORMED:
        answer = await desk.client.post(path, content=body)
        assert (answer.status_code, answer.json()["error_type"]) == (400, "bad_request"), body[:40]


async def test_nor_does_a_caller_without_a_key_make_the_controller_fail(desk: Desk) -> None:
    for body in MALFORMED:
        answer = await desk.client.post("/storage/upload/x/complete", content=body, headers={"authorization": ""})
        assert answer.status_code == 400


@pytest.mark.parametrize("seconds", ["9" * 300, '"' + "9" * 5000 + '"', "1e999", "NaN", "true", "[[[", '"\\ud800"'])
async def test_a_lifecycle_that_makes_no_sense_is_refused(desk: Desk, seconds: str) -> None:
    headers = {"x-fal-object-lifecycle": f'{{"expiration_duration_seconds": {seconds}}}'}
    assert (await desk.client.post("/files/upload", content=b"x", headers=headers)).status_code == 400


@pytest.mark.parametrize("seconds", ["9" * 300, "1e999", "true", '"60"', "-1", "0"])
async def test_the_life_of_a_token_is_a_number_in_range(desk: Desk, seconds: str) -> None:
    body = f'{{"allowed_apps": ["a"], "token_expiration": {seconds}}}'
    assert (await desk.client.post("/tokens/", content=body)).status_code == 400


async def test_data_holds_no_more_than_its_quota(desk: Desk, tmp_path: Path) -> None:
    store = DataDirectory(tmp_path / "bounded")
    files = Files(store, cast("Any", None), desk.clock, lambda: 1000)

    async def chunks(*sizes: int) -> AsyncIterator[bytes]:
        for size in sizes:
            yield b"x" * size

    await files.put("/data/a", chunks(400, 200))
    assert await files.used() == 600
    with pytest.raises(ResourceExhausted, match=r"/data may hold 1000 bytes .*`fal files rm`"):
        await files.put("/data/b", chunks(300, 300))
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(100_000))
    assert len(bomb.getvalue()) < 400

    async def packed() -> AsyncIterator[bytes]:
        yield bomb.getvalue()

    with pytest.raises(ResourceExhausted, match="more than is left"):
        await files.put("/data/dir", packed(), unzip=True)
    upload = files.begin("/data/c")
    await files.parts.part(upload, "1", chunks(500))
    with pytest.raises(ResourceExhausted):
        await files.complete(upload)
    assert await files.used() == 600, "nothing of what was refused stays"
    assert [entry.path for entry in await files.list("/data")] == ["/data/a"]
    await files.delete("/data/a")
    await files.put("/data/b", chunks(1000))
