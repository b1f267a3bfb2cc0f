"""Controllers keep code and files in a bucket. Their state directories have nothing of it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.controller import Controller, start
from tests.support.postgresql import postgresql
from tests.support.s3 import SECRET, S3Server, s3_server
from tests.support.waiting import until

APP = """
import fal

class Bucket(fal.App):
    app_auth = "public"
    app_files = ["words.txt"]
    min_concurrency = 0
    keep_alive = 1

    @fal.endpoint("/")
    def run(self) -> dict:
        with open("words.txt") as file:
            return {"words": file.read()}
"""


@pytest.fixture
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


def deploy(controller: Controller, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "bucket.py").write_text(APP)
    (folder / "words.txt").write_text("from the bucket")
    controller.fal("deploy", str(folder / "bucket.py"))


def upload(controller: Controller, content: bytes) -> str:
    headers = {"authorization": f"Key {controller.key}", "content-type": "image/png", "x-fal-file-name": "cat.png"}
    answer = httpx.post(f"http://{controller.host}/files/upload", content=content, headers=headers, timeout=60)
    answer.raise_for_status()
    return httpx.URL(answer.json()["access_url"]).path


def works(controller: Controller, path: str, content: bytes) -> None:
    assert controller.call("/local/bucket", {}).json() == {"words": "from the bucket"}
    found = httpx.get(f"http://{controller.host}{path}", timeout=60)
    assert (found.status_code, found.content) == (200, content)
    part = httpx.get(f"http://{controller.host}{path}", headers={"range": "bytes=3-9"}, timeout=60)
    assert (part.status_code, part.content) == (206, content[3:10])


def test_another_controller_takes_over_with_nothing_but_database_and_bucket(s3: S3Server, tmp_path: Path) -> None:
    content = os.urandom(6 * 1024 * 1024)
    url = f"s3://{s3.bucket()}/fal"
    key = tmp_path / "master.key"
    key.write_text("bWFzdGVyLWtleS1vZi10d28tY29udHJvbGxlcnMtMDE=\n")
    key.chmod(0o600)
    with tempfile.TemporaryDirectory(prefix="pg") as directory, postgresql(Path(directory)) as server:
        variables = {**s3.environment, "FAL_DATABASE_URL": server.make("fal"), "FAL_MASTER_KEY_FILE": str(key)}
        first = start(tmp_path / "first", "--standby", "--content", url, environment=variables)
        second = start(tmp_path / "second", "--standby", "--content", url, environment=variables)
        try:
            deploy(second, tmp_path / "app")
            path = upload(first, content)
            works(first, path, content)
            assert f"Content:     {url}\n" in first.fal("status").stdout
            assert f"code and files are in {url}" in first.fal("doctor", check=False).stdout
            first.process.kill()
            first.process.wait()
            shutil.rmtree(tmp_path / "first")
            until(lambda: "held" in second.fal("status", check=False).stdout, "the takeover")
            works(second, path, content)
        finally:
            for controller in (first, second):
                if controller.process.poll() is None:
                    controller.stop()


def test_what_is_on_disk_moves_into_the_bucket(s3: S3Server, tmp_path: Path) -> None:
    content = b"0123456789abc"
    controller = start(tmp_path / "state")
    deploy(controller, tmp_path / "app")
    path = upload(controller, content)
    assert controller.stop() == 0
    url = f"s3://{s3.bucket()}"
    controller = start(tmp_path / "state", "--content", url, environment={**s3.environment})
    try:
        for name in ("blobs", "app-files", "objects"):
            assert [found for found in (tmp_path / "state" / name).rglob("*") if found.is_file()] == []
        shutil.rmtree(tmp_path / "state" / "content-copies")
        (tmp_path / "state" / "content-copies").mkdir()
        works(controller, path, content)
    finally:
        controller.stop()
    refused = subprocess.run(
        [sys.executable, "-m", "fal_server", "--state-dir", str(tmp_path / "state")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert f"start it with --content {url}" in refused.stderr


def test_without_its_bucket_a_controller_goes_on_and_says_so(s3: S3Server, tmp_path: Path) -> None:
    url = f"s3://{s3.bucket()}"
    controller = start(tmp_path / "state", "--content", url, environment=s3.environment)
    try:
        deploy(controller, tmp_path / "app")
        s3.process.kill()
        refused = controller.fal("deploy", str(tmp_path / "app" / "bucket.py"), "--force", check=False)
        assert controller.call("/local/bucket", {}).json() == {"words": "from the bucket"}, "there is a copy"
        status = controller.fal("status").stdout
        assert f"Content:     {url} (the content in {url} cannot be used; it does not answer" in status
        doctor = controller.fal("doctor", check=False).stdout
        assert "Nothing can be deployed or uploaded" in doctor
        log = (tmp_path / "state" / "controller.log").read_text()
        assert SECRET not in status + doctor + log + refused.stderr
    finally:
        controller.stop()


def test_a_start_without_its_bucket_says_so_at_the_terminal(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        environment = {**os.environ, "HOME": str(tmp_path), "AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "us-east-1"}
        environment |= {"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": SECRET}

        def fal(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "fal_cli", *arguments, "--state-dir", str(state)]
            return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)

        try:
            started = fal("up", "--detach", "--port", "0", "--content", "s3://nowhere/fal")
        finally:
            stopped = fal("down", "--now")
    assert started.returncode == 0, started.stderr
    assert "Warning: the content in s3://nowhere/fal cannot be used; it does not answer (" in started.stderr
    assert "see AWS_ENDPOINT_URL and the network" in started.stderr
    assert stopped.returncode == 0, stopped.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--content", "s3://not-made"], "s3://not-made cannot be used; there is no such bucket: create it"),
        (["--content", "s3://not-made", "--content-dir", "/tmp"], "two places for the same"),
        (["--content", "s3://key:secret@bucket"], "is no URL of a bucket without credentials"),
        (["--content", "s3://bucket/a//b"], "is no URL of a bucket without credentials"),
        (["--content", "s3://bucket/a/../b"], "is no URL of a bucket without credentials"),
    ],
)
def test_a_wrong_place_is_refused(s3: S3Server, tmp_path: Path, arguments: list[str], said: str) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "fal_server", "--state-dir", str(tmp_path / "state"), *arguments],
        env={**os.environ, **s3.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode in (1, 2)
    assert said in refused.stderr
    assert "secret" not in refused.stderr.replace(str(tmp_path), "")


def test_a_bucket_that_was_never_reached_ties_nothing_to_it(s3: S3Server, tmp_path: Path) -> None:
    away = {**s3.environment, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    empty = start(tmp_path / "empty", "--content", "s3://typo/p", environment=away)
    assert empty.stop() == 0
    assert start(tmp_path / "empty").stop() == 0

    controller = start(tmp_path / "state")
    deploy(controller, tmp_path / "app")
    assert controller.stop() == 0
    with pytest.raises(AssertionError, match="the controller did not start"):
        start(tmp_path / "state", "--content", "s3://typo/p", environment=away)
    controller = start(tmp_path / "state")
    try:
        assert controller.call("/local/bucket", {}).json() == {"words": "from the bucket"}
    finally:
        controller.stop()
