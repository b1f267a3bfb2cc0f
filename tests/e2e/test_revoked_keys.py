"""Revoking a key ends its calls in progress, on both wires. It ends those of no other key."""

from __future__ import annotations

import http.client
import json
import re
import select
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support.controller import BIN, Controller
from tests.support.waiting import until

APP = """
import asyncio
import fal
from fastapi import WebSocket
from fastapi.responses import StreamingResponse


class Endless(fal.App, name="endless", keep_alive=300, max_multiplexing=20, min_concurrency=1):
    @fal.endpoint("/")
    async def wait(self) -> dict:
        print("it waits")
        await asyncio.Event().wait()
        return {}

    @fal.endpoint("/stream")
    async def stream(self) -> StreamingResponse:
        async def events():
            yield "data: started\\n\\n"
            await asyncio.Event().wait()
        return StreamingResponse(events(), media_type="text/event-stream")

    @fal.endpoint("/socket", is_websocket=True)
    async def socket(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("started")
        await websocket.receive_text()
"""


@pytest.fixture(scope="module")
def runner(controller: Controller, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    file: Path = tmp_path_factory.mktemp("endless") / "app.py"
    file.write_text(APP)
    controller.fal("deploy", str(file), "--auth", "private")

    def idle() -> list[str]:
        listed = json.loads(controller.fal("runners", "list", "--state", "idle", "--json").stdout)["runners"]
        return [runner["runner_id"] for runner in listed if runner["alias"] == "endless"]

    (runner_id,) = until(idle, "the runner starts")
    yield runner_id
    controller.fal("apps", "delete", "endless", "--yes")


class Key:
    """A key, and the calls that use it; the stack closes them."""

    def __init__(self, controller: Controller, stack: ExitStack, *options: str) -> None:
        made = json.loads(controller.fal("keys", "create", "--scope", "ADMIN", "--output", "json", *options).stdout)
        self.controller = controller
        self.stack = stack
        self.id = made["key_id"]
        self.text = f"{made['key_id']}:{made['key_secret']}"
        self.headers = {"Authorization": f"Key {self.text}", "Content-Type": "application/json"}

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command that prints a line when it has started."""
        environment = {**self.controller.environment, "FAL_KEY": self.text}
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [str(BIN / "fal"), *arguments], env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        self.stack.enter_context(process)
        self.stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline()
        return process

    def send(self, method: str, path: str, body: object = None) -> http.client.HTTPConnection:
        connection = self.stack.enter_context(
            closing(http.client.HTTPConnection("127.0.0.1", self.controller.port, timeout=120))
        )
        connection.request(method, path, None if body is None else json.dumps(body), self.headers)
        return connection

    def stream(self, method: str, path: str) -> http.client.HTTPResponse:
        """Start a response that never ends."""
        response = self.stack.enter_context(self.send(method, path, {} if method == "POST" else None).getresponse())
        assert response.status == 200, response.read()
        assert response.readline()
        return response

    def socket(self, path: str, *, token: str | None = None) -> ClientConnection:
        headers = {"Authorization": f"Key {self.text}"} if token is None else {}
        query = "" if token is None else f"?fal_jwt_token={token}"
        url = f"ws://{self.controller.host}/local/endless{path}{query}"
        return self.stack.enter_context(connect(url, additional_headers=headers))

    def token(self) -> str:
        body = {"allowed_apps": ["endless"], "token_expiration": 600}
        return str(json.loads(self.send("POST", "/tokens/", body).getresponse().read()))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def until_closed(socket: ClientConnection) -> None:
    while True:
        socket.recv(timeout=120)


def is_silent(response: http.client.HTTPResponse) -> bool:
    return not select.select([response.fileno()], [], [], 0)[0]


def test_what_is_under_way_with_a_key_ends_with_it(controller: Controller, runner: str, stack: ExitStack) -> None:
    key, other = Key(controller, stack), Key(controller, stack)
    queued = json.loads(key.send("POST", "/queue/local/endless", {}).getresponse().read())["request_id"]
    kept = other.stream("POST", "/local/endless/stream")
    commands = {
        "exec": key.command("runners", "exec", runner, "--", "sh", "-c", "echo started; cat"),
        "logs": key.command("runners", "logs", runner, "--follow"),
    }
    streams = {
        "the app's events": key.stream("POST", "/local/endless/stream"),
        "the queue's events": key.stream("GET", f"/queue/local/endless/requests/{queued}/status/stream"),
    }
    sockets = {
        "by key": key.socket("/socket"),
        "by token": key.socket("/socket", token=key.token()),
        "messages": key.socket("/"),
    }
    for name in ("by key", "by token"):
        assert sockets[name].recv() == "started"
    sockets["messages"].send("{}")
    waits = key.send("POST", "/local/endless/", {})
    until(
        lambda: controller.fal("runners", "logs", runner).stdout.count("it waits") == 3, "three requests are under way"
    )

    controller.fal("keys", "revoke", key.id, "--yes")

    for name, process in commands.items():
        _, printed = process.communicate(timeout=120)
        assert process.returncode != 0, name
        assert f"key {key.id} is revoked" in printed, name
    for response in streams.values():
        with pytest.raises((ConnectionError, http.client.IncompleteRead)):
            response.read()
    for socket in sockets.values():
        with pytest.raises(ConnectionClosed):
            until_closed(socket)
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        waits.getresponse()
    assert controller.call("/local/endless/stream", {}, key=key.text).status == 401
    assert is_silent(kept), "the other key's call goes on"


def test_a_command_that_revokes_its_own_key_is_answered(controller: Controller, stack: ExitStack) -> None:
    key = Key(controller, stack)
    environment = {**controller.environment, "FAL_KEY": key.text}
    done = subprocess.run(
        [str(BIN / "fal"), "keys", "revoke", key.id, "--yes"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, f"Revoked key {key.id}." in done.stderr) == (0, True), done.stderr


def test_what_is_under_way_ends_when_its_key_expires(controller: Controller, runner: str, stack: ExitStack) -> None:
    key = Key(controller, stack, "--expires", "20s")
    logs = key.command("runners", "logs", runner, "--follow")
    events = key.stream("POST", "/local/endless/stream")
    with pytest.raises((ConnectionError, http.client.IncompleteRead)):
        events.read()
    _, printed = logs.communicate(timeout=120)
    assert f"key {key.id} is revoked or has expired" in printed
    assert controller.call("/local/endless/stream", {}, key=key.text).status == 401


def test_a_rotated_key_is_replaced(controller: Controller, stack: ExitStack) -> None:
    old = Key(controller, stack, "--desc", "the shop")
    done = controller.fal("keys", "rotate", old.id, "--overlap", "1h")
    assert f"Created a key that may do what {old.id} may, which works for another 1 h." in done.stderr
    new = done.stdout.strip().removeprefix("FAL_KEY='").removesuffix("'")
    listed = json.loads(controller.fal("keys", "list", "--json").stdout)["keys"]
    found = {key["key_id"]: key for key in listed}
    assert found[new.partition(":")[0]]["description"] == "the shop"
    assert found[old.id]["expires_at"] is not None
    assert found[new.partition(":")[0]]["expires_at"] is None
    for key in (old.text, new):
        assert controller.call("/users/current", key=key).status == 200


def test_whoever_has_a_key_learns_who_he_is(controller: Controller) -> None:
    made = json.loads(
        controller.fal("keys", "create", "--preset", "API", "--desc", "the shop", "--output", "json").stdout
    )
    environment = {**controller.environment, "FAL_KEY": f"{made['key_id']}:{made['key_secret']}"}
    whoami = [str(BIN / "fal"), "auth", "whoami"]
    shown = subprocess.run(whoami, env=environment, capture_output=True, text=True, check=True).stdout
    assert re.search(r"^account +local$", shown, re.MULTILINE)
    assert re.search(r"^description +the shop$", shown, re.MULTILINE)
    assert re.search(rf"^key id +{made['key_id']}$", shown, re.MULTILINE)
    assert made["key_secret"] not in shown
    printed = subprocess.run([*whoami, "--json"], env=environment, capture_output=True, text=True, check=True).stdout
    assert json.loads(printed)["controller"] == controller.host
