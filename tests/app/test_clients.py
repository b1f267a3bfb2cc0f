"""Programs that run their own apps and functions in runners, and that call apps by their names."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator, Mapping
from pathlib import Path

import pytest

from tests.support.controller import Controller, running

APP = """
import asyncio, json, sys
import fal
from fal.app import AppClient, AppClientError
from fal.workflows import Workflow, create_workflow
from fastapi.responses import StreamingResponse
from pydantic import BaseModel


class Input(BaseModel):
    name: str = "you"


class Output(BaseModel):
    text: str


class Greeter(fal.App):
    machine_type = "XS"

    @fal.endpoint("/")
    def greet(self, request: Input) -> Output:
        print("greets", request.name)
        return Output(text=f"hello, {request.name}")

    @fal.endpoint("/loud/er")
    def shout(self, request: Input) -> dict[str, str]:
        if request.name == "nobody":
            raise fal.exceptions.FieldException("name", "is nobody")
        return {"text": request.name.upper()}

    @fal.endpoint("/count")
    def count(self, request: Input) -> StreamingResponse:
        return StreamingResponse((f"data: {n}\\n\\n" for n in range(3)), media_type="text/event-stream")


class Broken(fal.App):
    machine_type = "XS"

    def setup(self):
        raise RuntimeError("no weights")

    @fal.endpoint("/")
    def greet(self, request: Input) -> Output: ...


@fal.function(machine_type="XS")
def double(number: int, plus: int = 0) -> int:
    if number < 0:
        raise ValueError("below 0")
    print("doubles", number)
    return number * 2 + plus


if __name__ == "__main__":
    globals()[sys.argv[1]]() if len(sys.argv) > 1 else None
"""

CALLS = """
def say(*values):
    print(json.dumps(values), flush=True)


def connected():
    with AppClient.connect(Greeter) as client:
        answer = client.greet(Input(name="me"))
        say(type(answer).__name__, answer.text, client.shout({"name": "me"}), client.health())
        say(asyncio.run(client.greet.call_async(Input())).text, client.application.count("/"))
        url = client.url
        try:
            client.shout(Input(name="nobody"))
        except AppClientError as error:
            say(error.status_code, "is nobody" in str(error), "content-type" in error.headers)
    try:
        client.greet(Input())
    except AppClientError as error:
        say("ended", error.status_code)


def broken():
    info = Broken.spawn()
    try:
        info.wait(startup_timeout=60)
    except AppClientError as error:
        say(error.status_code, str(error))
    finally:
        info.stream.cancel()


def functions():
    say(double.submit(4, plus=1).result(), list(double.map([1, 2], [10, 20])), double(5))
    info = double.spawn(21)
    say(info.return_value, any("doubles 21" in line.message for line in list(info.logs.queue)))
    failed = double.submit(-1)
    say(type(failed.exception()).__name__, str(failed.exception()))


def apps():
    from fal import apps
    import httpx

    named = AppClient(Greeter, "local/greeter")
    say(named.greet(Input(name="by name")).text, named.application)
    say(apps.run("local/greeter", {"name": "queue"}), apps.run("local/greeter", {"name": "path"}, path="/loud/er"))
    handle = apps.submit("local/greeter/loud/er", {"name": "id"})
    say(handle.get(), type(handle.status()).__name__, handle.app_id)
    say(list(apps.stream("local/greeter", {}, path="count")))
    try:
        apps.run("local/greeter", {"name": "nobody"}, path="loud/er")
    except httpx.HTTPStatusError as error:
        say(error.response.status_code, "is nobody" in str(error))
    try:
        handle.cancel()
    except httpx.HTTPStatusError as error:
        say(error.response.status_code)
"""


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Generator[Controller]:
    with running(tmp_path_factory.mktemp("clients")) as controller:
        yield controller


def ran(controller: Controller, directory: Path, name: str) -> list[object]:
    """What one of the program's functions says."""
    program = directory / "program.py"
    program.write_text(APP.replace("\n\nif __name__", f"\n{CALLS}\n\nif __name__"))
    environment: Mapping[str, str] = controller.environment
    done = subprocess.run(
        [sys.executable, program, name], env=environment, capture_output=True, text=True, check=False, timeout=180
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


def test_an_app_is_served_while_a_program_calls_it(controller: Controller, tmp_path: Path) -> None:
    said = ran(controller, tmp_path, "connected")
    assert said[0] == ["Output", "hello, me", {"text": "ME"}, {"version": "unknown"}]
    assert said[1:4] == [["hello, you", 1], [422, True, True], ["ended", said[3][1]]]  # type: ignore[index]
    assert controller.call("/local/greeter", {}, key=controller.key).status == 404


def test_an_app_that_fails_to_start_says_so(controller: Controller, tmp_path: Path) -> None:
    ((status, text),) = ran(controller, tmp_path, "broken")  # type: ignore[misc]
    assert status in (500, 503)
    assert "/health" in text or "ended" in text or "start" in text


def test_functions_run_without_being_waited_for(controller: Controller, tmp_path: Path) -> None:
    results, spawned, failed = ran(controller, tmp_path, "functions")
    assert results == [9, [12, 24], 10]
    assert spawned == [42, True]
    assert failed == ["UserFunctionError", failed[1]]  # type: ignore[index]
    assert "below 0" in failed[1]  # type: ignore[index]


def test_apps_are_called_by_their_names(controller: Controller, tmp_path: Path) -> None:
    (tmp_path / "greeter.py").write_text(APP)
    controller.fal("deploy", f"{tmp_path / 'greeter.py'}::Greeter", "--app-name", "greeter")
    named, queued, handle, streamed, refused, late, worked = ran(controller, tmp_path, "apps")
    assert named == ["hello, by name", "local/greeter"]
    assert queued == [{"text": "hello, queue"}, {"text": "PATH"}]
    assert handle == [{"text": "ID"}, "Completed", "local/greeter"]
    assert streamed == [["data: 0", "data: 1", "data: 2"]]
    assert refused == [422, True]
    assert late == [400]
    assert worked == [{"both": ["hello, me", "HELLO, ME"]}]


def test_a_directory_is_uploaded_when_it_has_changed(controller: Controller, tmp_path: Path) -> None:
    first, unchanged, changed = ran(controller, tmp_path, "directories")
    assert first == ["/data/synced/weights", [".fal_hash", ".gitignore", "deep"]]
    assert unchanged == [[".fal_hash", "deep"]]
    assert changed == [[".fal_hash", ".gitignore", "deep"], "b"]
