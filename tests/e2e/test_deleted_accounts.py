"""Deleting an account ends its work and leaves nothing of it. That holds even if the controller is killed."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from fal_server.store import AesVault, open_store
from fal_server.store.crypto.master_key import load_master_key
from tests.support.controller import BIN, Controller, running, start
from tests.support.waiting import until

APP = """
import asyncio
import os
import fal
from fastapi import WebSocket

MARK = "{mark}"


class Shop(fal.App, name="shop", keep_alive=300, max_multiplexing=20, min_concurrency=1):
    app_auth = "private"

    @fal.endpoint("/")
    async def wait(self) -> dict:
        print("sold " + MARK)
        data = os.environ["FAL_DATA_DIR"]
        open(f"{{data}}/by-the-app", "w").write(MARK)
        os.makedirs(f"{{data}}/closed", exist_ok=True)
        open(f"{{data}}/closed/inside", "w").write(MARK)
        os.chmod(f"{{data}}/closed", 0o500)
        await asyncio.Event().wait()
        return {{}}

    @fal.endpoint("/pid")
    async def pid(self) -> dict:
        return {{"pid": os.getpid(), "mark": MARK}}

    @fal.endpoint("/socket", is_websocket=True)
    async def socket(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("started")
        await websocket.receive_text()
"""


class Owner:
    """An account with one of everything. `mark` marks each thing unless it is encrypted."""

    def __init__(self, controller: Controller, folder: Path) -> None:
        self.name = f"a{secrets.token_hex(4)}"
        self.mark = secrets.token_hex(16)
        made = json.loads(controller.fal("teams", "create", self.name, "--json").stdout)
        self.at = replace(controller, key=f"{made['key_id']}:{made['key_secret']}")
        others = own_directories(controller)
        folder.mkdir()
        (folder / "app.py").write_text(APP.format(mark=self.mark))
        (folder / "file.txt").write_text(self.mark)
        self.at.fal("secrets", "set", "S=hidden-from-logs")
        self.at.fal("environments", "create", "side")
        self.at.fal("files", "upload", str(folder / "file.txt"), "/data/file.txt")
        self.at.fal("deploy", str(folder / "app.py"))
        (self.runner,) = until(self.runners, "the runner starts")
        self.pid = self.at.call(f"/{self.name}/shop/pid", {}, key=self.at.key).json()["pid"]
        target = self.at.call(
            "/storage/upload/initiate", {"file_name": self.mark, "content_type": "text/plain"}, key=self.at.key
        ).json()
        assert isinstance(target, dict)
        self.at.call(target["upload_url"].split(self.at.host)[1], {"mark": self.mark}, method="PUT")
        self.object = target["file_url"].split(self.at.host)[1]
        assert self.at.call(self.object).status == 200
        self.queued = self.at.call(f"/queue/{self.name}/shop", {"mark": self.mark}, key=self.at.key).json()
        until(lambda: self.mark in self.at.fal("runners", "logs", self.runner).stdout, "the request is under way")

        self.directories = own_directories(controller) - others
        assert {directory.parent.name for directory in self.directories} == {"accounts", "homes"}

    def runners(self) -> list[str]:
        listed = json.loads(self.at.fal("runners", "list", "--state", "idle", "--json").stdout)["runners"]
        return [runner["runner_id"] for runner in listed]

    def socket(self) -> ClientConnection:
        headers = {"Authorization": f"Key {self.at.key}"}
        return connect(f"ws://{self.at.host}/{self.name}/shop/socket", additional_headers=headers)

    def places_of_mark(self) -> list[str]:
        """Return the files of the state directory that hold the mark. It is in their name or their content."""
        found: list[str] = []
        for path in self.at.state_dir.rglob("*"):
            inside = path.is_file() and not path.is_symlink() and self.mark.encode() in path.read_bytes()
            if self.mark in path.name or inside:
                found.append(str(path.relative_to(self.at.state_dir)))
        return found

    def check_gone(self) -> None:
        assert not Path(f"/proc/{self.pid}").exists()
        for path in ("/users/current", f"/{self.name}/shop/pid", f"/queue/{self.name}/shop"):
            assert self.at.call(path, None if path == "/users/current" else {}, key=self.at.key).status == 401
        assert self.at.call(self.object).status == 404
        assert self.places_of_mark() == []
        assert not self.directories & own_directories(self.at)

    def check_there(self) -> None:
        assert self.at.call(f"/{self.name}/shop/pid", {}, key=self.at.key).json() == {
            "pid": self.pid,
            "mark": self.mark,
        }
        assert self.at.call(self.object).status == 200
        assert self.mark in self.at.fal("runners", "logs", self.runner).stdout
        assert json.loads(self.at.fal("secrets", "list", "--json").stdout)["secrets"]
        assert {"data/file.txt", "data/by-the-app"} <= {
            place.partition("/")[2].partition("/")[2] for place in self.places_of_mark() if place.startswith("accounts")
        }


def own_directories(controller: Controller) -> set[Path]:
    """Return the directories of all accounts except the first."""
    return {*controller.state_dir.glob("accounts/*"), *controller.state_dir.glob("homes/*")}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Controller]:
    with running(tmp_path / "state", "--warm-shims", "0", "--warm-workers", "0") as controller:
        yield controller


def test_what_is_under_way_ends_and_nothing_is_left(own: Controller, tmp_path: Path, stack: ExitStack) -> None:
    stays, goes = Owner(own, tmp_path / "stays"), Owner(own, tmp_path / "goes")
    made = json.loads(own.fal("teams", "create", "ann", "--user", "--json").stdout)
    ann = replace(own, key=f"{made['key_id']}:{made['key_secret']}")
    own.fal("teams", "add", goes.name, "ann", "--role", "owner")
    login = tmp_path / "auth0_token"
    login.write_text(f"\n{ann.fal('auth', 'token').stdout}")

    def command(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [str(BIN / "fal"), *arguments], env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        stack.enter_context(process)
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline()
        return process

    home = Path(ann.environment["HOME"]) / ".fal"
    home.mkdir(exist_ok=True)
    (home / "auth0_token").write_text(login.read_text())
    as_member = {**ann.environment, "FAL_FORCE_AUTH_BY_USER": "1"}
    commands = [
        command(goes.at.environment, "runners", "exec", goes.runner, "--", "sh", "-c", "echo started; cat"),
        command(goes.at.environment, "runners", "logs", goes.runner, "--follow"),
        command(as_member, "runners", "logs", goes.runner, "--follow", "--team", goes.name),
    ]
    socket, other = stack.enter_context(goes.socket()), stack.enter_context(stays.socket())
    assert (socket.recv(), other.recv()) == ("started", "started")

    done = own.fal("teams", "delete", goes.name, "--yes")
    assert done.stderr.strip() == f"Deleted {goes.name}; none of its keys works any more."

    for process in commands:
        _, printed = process.communicate(timeout=120)
        assert process.returncode != 0, printed
    with pytest.raises(ConnectionClosed):
        socket.recv(timeout=120)
    goes.check_gone()
    stays.check_there()
    other.send("still there")
    assert goes.name not in own.fal("teams", "list", "--all").stdout
    refused = subprocess.run(
        [str(BIN / "fal"), "apps", "list", "--team", goes.name],
        env=as_member,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode != 0
    assert goes.name in own.fal("audit", "list").stdout
    assert f"account '{goes.name}'" in own.fal("teams", "delete", goes.name, "--yes", check=False).stderr
    # The nickname is free, and its next account has nothing of the former one.
    made = json.loads(own.fal("teams", "create", goes.name, "--json").stdout)
    heir = replace(own, key=f"{made['key_id']}:{made['key_secret']}")
    assert json.loads(heir.fal("apps", "list", "--json").stdout)["apps"] == []
    assert heir.call(f"/{goes.name}/shop/pid", {}, key=heir.key).status == 404


def test_the_next_controller_goes_on_with_a_deletion(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with killed_later(start(state)) as first:
        stays, goes = Owner(first, tmp_path / "stays"), Owner(first, tmp_path / "goes")
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
    # It had answered the caller, but not started with the rest.
    asyncio.run(mark_deleted(state, goes.name))
    with running(state) as second:
        for owner in (stays, goes):
            owner.at = replace(second, key=owner.at.key)
        assert second.call("/users/current", key=goes.at.key).status == 401
        until(lambda: "removed everything of the deleted account" in (state / "controller.log").read_text(), "it ends")
        goes.check_gone()
        stays.check_there()


def test_the_owners_account_stays(controller: Controller) -> None:
    refused = controller.fal("teams", "delete", "local", "--yes", check=False)
    assert refused.returncode == 1
    assert "is the one of the controller's owner" in refused.stderr
    assert controller.call("/users/current", key=controller.key).status == 200


def test_only_the_owner_deletes(controller: Controller) -> None:
    name = f"a{secrets.token_hex(4)}"
    made = json.loads(controller.fal("teams", "create", name, "--json").stdout)
    crew = replace(controller, key=f"{made['key_id']}:{made['key_secret']}")
    refused = crew.fal("teams", "delete", name, "--yes", check=False)
    assert refused.returncode != 0
    assert "owner" in refused.stderr
    assert crew.call("/users/current", key=crew.key).status == 200
    controller.fal("teams", "delete", name, "--yes")


@contextmanager
def killed_later(controller: Controller) -> Generator[Controller]:
    try:
        yield controller
    finally:
        if controller.process.poll() is None:
            controller.stop()


async def mark_deleted(state: Path, nickname: str) -> None:
    store = await open_store(
        state / "fal.db",
        AesVault(load_master_key(state, {})),
    )
    try:
        (account,) = [each for each in await store.accounts.all() if each.nickname == nickname]
        assert await store.accounts.delete(account.id, datetime.now(UTC))
    finally:
        await store.close()
