"""A program with an app and a function. It calls them and prints the results by subject."""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

import fal
from fal.app import AppClient, AppClientError
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
        return StreamingResponse((f"data: {n}\u2028\n\n" for n in range(3)), media_type="text/event-stream")


class Broken(fal.App):
    machine_type = "XS"

    def setup(self):
        raise RuntimeError("no weights")

    @fal.endpoint("/")
    def greet(self, request: Input) -> Output: ...


class Refused(Exception):
    pass


@fal.function(machine_type="XS", requirements=["pydantic", "fastapi"])
def double(number: int, plus: int = 0) -> int:
    if number < 0:
        raise ValueError("below 0", number)
    if number > 100:
        raise Refused("above 100")
    print("doubles", number)
    return number * 2 + plus


SAID = {}


def say(*values):
    SAID.setdefault(sys._getframe(1).f_code.co_name, []).append(values)


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
    say(double(4, plus=1), double.func(5), list(double.map([1, 2], [10, 20])))
    info = double.spawn(21)
    say(info.return_value, any("doubles 21" in line.message for line in list(info.logs.queue)))
    failed = double.submit(-1)
    say(type(failed.exception()).__name__, str(failed.exception()), repr(failed.exception().__cause__))  # pyright: ignore[reportOptionalMemberAccess]
    for number in (-1, 101):
        try:
            double(number)
        except (ValueError, Refused) as error:
            say(type(error).__name__, error.args, "in double" in error.__notes__[0])


def directories():
    from fal.sync import sync_dir

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / ".gitignore").write_text("*.tmp\n")
        (directory / "a.tmp").touch()
        (directory / "deep").mkdir()
        (directory / "deep" / "b").write_text("a")
        for text in ("a", "a", "b"):
            (directory / "deep" / "b").write_text(text)
            place = sync_dir(directory, "/data/synced/weights")
            kept = uploaded() / "synced" / "weights"
            say(place, sorted(path.name for path in kept.iterdir()), (kept / "deep" / "b").read_text())
            (kept / ".gitignore").unlink(missing_ok=True)  # comes back only if the directory is uploaded again


def apps():
    import httpx
    from fal import apps
    from fal.workflows import create_workflow

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
    workflow = create_workflow("both", Input, Output)
    greeted = workflow.run("local/greeter", {"name": workflow.input.name})
    shouted = workflow.run("local/greeter/loud/er", {"name": greeted.text})
    workflow.set_output({"both": [greeted.text, shouted.text]})
    say(workflow.execute({"name": "me"}))


def uploaded():
    return Path(os.environ["FAL_STATE_DIR"]) / "data"


if __name__ == "__main__":
    for work in (connected, broken, functions, directories, apps):
        work()
    print(json.dumps(SAID))
