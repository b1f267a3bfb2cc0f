"""The official client's files, queues and counts of GPUs."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.interop.conftest import SAMPLES
from tests.interop.records import covers
from tests.support.controller import Controller
from tests.support.official import Official
from tests.support.waiting import until


@covers("files list", "files upload", "files download", "files mv", "files rm")
@pytest.mark.parametrize("size", [0, 6, 25_000_000])
def test_files_go_there_and_back(official: Official, tmp_path: Path, size: int) -> None:
    here, back, there = tmp_path / "here.bin", tmp_path / "back.bin", f"/data/deep/{size}/x.bin"
    here.write_bytes(os.urandom(size))
    official.fal("files", "upload", here, there)
    official.fal("files", "download", there, back)
    assert back.read_bytes() == here.read_bytes()
    assert official.fal("files", "list").stdout.split() == ["data"]
    assert official.fal("files", "list", f"/data/deep/{size}").stdout.split() == ["x.bin"]
    official.fal("files", "mv", there, f"/data/moved-{size}.bin")
    assert f"moved-{size}.bin" in official.fal("files", "list", "/data").stdout
    official.fal("files", "rm", f"/data/moved-{size}.bin")
    assert f"moved-{size}.bin" not in official.fal("files", "list", "/data").stdout
    assert official.fal("files", "download", there, back, check=False).returncode == 1


@covers("files upload", "files download")
def test_directories_go_there_and_back(official: Official, tmp_path: Path) -> None:
    (tmp_path / "tree" / "in").mkdir(parents=True)
    (tmp_path / "tree" / "in" / "a.txt").write_text("a")
    (tmp_path / "tree" / "b.txt").write_text("b")
    official.fal("files", "upload", tmp_path / "tree", "/data/tree")
    official.fal("files", "download", "/data/tree", tmp_path / "back")
    assert sorted(path.name for path in (tmp_path / "back").rglob("*.txt")) == ["a.txt", "b.txt"]


@pytest.fixture
def page(tmp_path: Path) -> Generator[str]:
    """Serve a page on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@covers("files upload-url")
def test_the_controller_fetches_what_an_address_leads_to(official: Official, page: str, tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text("some")
    official.fal("files", "upload-url", f"{page}some.txt", "/data/fetched/some.txt")
    official.fal("files", "download", "/data/fetched/some.txt", tmp_path / "back.txt")
    assert (tmp_path / "back.txt").read_text() == "some"


def test_addresses_of_the_own_network_are_not_fetched(official: Official) -> None:
    refused = official.fal("files", "upload-url", "http://192.168.0.1/page", "/data/page", check=False)
    assert refused.returncode == 1
    assert "192.168.0.1" in refused.stdout


@covers("queue size", "queue flush")
def test_a_queue_is_measured_and_flushed(controller: Controller, official: Official) -> None:
    official.fal("deploy", SAMPLES / "tiny.py", "--app-name", "queued", "--auth", "public")
    assert official.json("queue", "size", "queued") == {"size": 0}
    for _ in range(4):  # two runners take one each
        assert controller.call("/queue/local/queued/slow", {}).status == 200
    until(lambda: official.json("queue", "size", "queued")["size"] == 2, "two wait")
    assert sum(official.json("queue", "size", "queued", "--by-user")["by_user"].values()) == 2
    assert "flushed" in official.fal("queue", "flush", "queued").stdout
    assert official.json("queue", "size", "queued")["size"] == 0
    official.fal("apps", "delete", "queued")


GPUS = """
import json
from fal.api import SyncServerlessClient
client = SyncServerlessClient()
print(json.dumps([client.runners.gpus(), client.apps.gpus("on-gpus")]))
"""


@covers("runners gpus", "apps gpus", "SyncServerlessClient().runners", "SyncServerlessClient().apps")
def test_gpus_are_counted(controller: Controller, official: Official, tmp_path: Path) -> None:
    assert official.json("runners", "gpus") == {"gpus": {}, "total": 0}
    app = (SAMPLES / "tiny.py").read_text().replace('machine_type = "XS"', 'machine_type = "GPU-H100"')
    (tmp_path / "on_gpus.py").write_text(app)
    official.fal("deploy", tmp_path / "on_gpus.py", "--app-name", "on-gpus", "--auth", "public")
    assert controller.call("/local/on-gpus", {"text": ""}).status == 200
    counted = {"gpus": {"H100": 1}, "total": 1}
    assert official.json("runners", "gpus") == official.json("apps", "gpus", "on-gpus") == counted
    assert "Total: 1" in official.fal("runners", "gpus").stdout
    assert official.script(GPUS) == [counted, counted]
    official.fal("deploy", SAMPLES / "functions.py::served", "--app-name", "at-rest")
    assert official.json("apps", "gpus", "at-rest") == {"gpus": {}, "total": 0}
    unknown = official.fal("apps", "gpus", "none", check=False)
    assert unknown.returncode == 1
    assert "not found in metrics" in unknown.stdout
    official.fal("apps", "delete", "on-gpus")
