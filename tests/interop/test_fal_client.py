"""The client fal_client over TLS, blocking and asyncio, and the `fal` command. The authority is the controller's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.interop.records import covers
from tests.support.official import Official

HEAD = """
import asyncio, json
import fal_client
APP = "local/tiny"
def show(value):
    print(json.dumps(value))
"""


def said(client: Official, script: str) -> Any:
    return client.script(HEAD + script)


def test_the_command_speaks_tls(client: Official) -> None:
    assert "tiny" in [app["alias"] for app in client.json("apps", "list")["apps"]]
    assert "'local'" in client.fal("auth", "whoami").stdout
    stranger = {name: value for name, value in client.extra.items() if name == "ISOLATE_TEST_MODE"}
    untrusting = Official(python=client.python, home=client.home, host=client.host, key=client.key, extra=stranger)
    assert untrusting.fal("apps", "list", check=False).returncode == 1


@covers("api")
def test_the_command_calls_apps(client: Official) -> None:
    assert "word1st" in client.fal("api", "local/tiny", "text=word").stdout
    assert client.fal("api", "local/tiny/stream", "text=word").stdout.count("data:") == 3


@covers("run")
def test_run(client: Official) -> None:
    assert said(client, 'show(fal_client.run(APP, arguments={"text": "the "}))') == {
        "text": "the 1st",
        "greeting": "hello",
    }
    script = """
try:
    fal_client.run(APP, arguments={"text": []})
except fal_client.FalClientHTTPError as error:
    show([error.status_code, "x-fal-request-id" in error.response_headers])
"""
    assert said(client, script) == [422, True]


@covers("submit, status, result")
def test_submit_status_and_result(client: Official) -> None:
    script = """
handle = fal_client.submit(APP, arguments={"text": "queued "}, priority="low")
seen = [type(event).__name__ for event in handle.iter_events(with_logs=True, interval=0.05)]
again = fal_client.result(APP, handle.request_id)
status = fal_client.status(APP, handle.request_id, with_logs=True)
show([handle.get(), again, seen[-1], type(status).__name__, [line["message"] for line in status.logs]])
"""
    got, again, last, status, logs = said(client, script)
    assert got == again == {"text": "queued 1st", "greeting": "hello"}
    assert (last, status) == ("Completed", "Completed")
    assert isinstance(logs, list)


@covers("cancel")
def test_cancel(client: Official) -> None:
    script = """
handle = fal_client.submit(APP, arguments={}, path="/slow")
for event in handle.iter_events(interval=0.05):
    if isinstance(event, fal_client.InProgress):
        handle.cancel()
        break
try:
    show([type(event).__name__, handle.get()])
except fal_client.FalClientHTTPError as error:
    show([type(event).__name__, error.status_code])
"""
    assert said(client, script) == ["InProgress", 499]


@covers("cancel")
def test_an_app_without_an_endpoint_for_it_ignores_a_cancellation(client: Official) -> None:
    script = """
handle = fal_client.submit(APP, arguments={"text": "done"}, path="/deaf")
for event in handle.iter_events(interval=0.02):
    if isinstance(event, fal_client.InProgress):
        handle.cancel()
        break
show(handle.get()["text"])
"""
    assert said(client, script) == "done"


@covers("subscribe")
def test_subscribe(client: Official) -> None:
    script = """
updates = []
def note(update):
    updates.append(type(update).__name__)
result = fal_client.subscribe(APP, arguments={"text": "heard "}, with_logs=True, on_queue_update=note)
show([result["text"], updates[-1]])
"""
    assert said(client, script) == ["heard 1st", "Completed"]


@covers("stream")
def test_stream(client: Official) -> None:
    got = said(client, 'show(list(fal_client.stream(APP, arguments={"text": "s"})))')
    assert got == [{"number": number, "text": "s"} for number in range(3)]


@covers("realtime")
def test_realtime(client: Official) -> None:
    script = """
with fal_client.realtime(APP, use_jwt=False) as connection:
    answers = []
    for word in ("one", "two"):
        connection.send({"text": word})
        answers.append(connection.recv()["text"])
show(answers)
"""
    assert said(client, script) == ["ONE", "TWO"]


@covers("run_async, submit_async, subscribe_async, stream_async")
def test_asyncio(client: Official) -> None:
    script = """
async def main():
    ran = await fal_client.run_async(APP, arguments={"text": "a "})
    handle = await fal_client.submit_async(APP, arguments={"text": "b "})
    got = await handle.get()
    subscribed = await fal_client.subscribe_async(APP, arguments={"text": "c "})
    streamed = [event["number"] async for event in fal_client.stream_async(APP, arguments={})]
    slow = await fal_client.submit_async(APP, arguments={}, path="/slow")
    await slow.cancel()
    show([ran["text"], got["text"], subscribed["text"], streamed])

asyncio.run(main())
"""
    assert said(client, script) == ["a 1st", "b 1st", "c 1st", [0, 1, 2]]


@covers("status_async, result_async, cancel_async", "realtime_async, ws_connect (asyncio)")
def test_asyncio_by_id_and_in_realtime(client: Official) -> None:
    script = """
async def main():
    handle = await fal_client.submit_async(APP, arguments={"text": "d "}, priority="low", start_timeout=60)
    seen = [type(event).__name__ async for event in handle.iter_events(with_logs=True, interval=0.05)]
    status = await fal_client.status_async(APP, handle.request_id, with_logs=True)
    result = await fal_client.result_async(APP, handle.request_id)
    slow = await fal_client.submit_async(APP, arguments={}, path="/slow")
    async for event in slow.iter_events(interval=0.05):
        if isinstance(event, fal_client.InProgress):
            await fal_client.cancel_async(APP, slow.request_id)
            break
    try:
        await slow.get()
    except fal_client.FalClientHTTPError as error:
        ended = [error.status_code, error.error_type]
    async with fal_client.realtime_async(APP, use_jwt=False) as connection:
        await connection.send({"text": "word"})
        spoken = (await connection.recv())["text"]
    show([seen[-1], type(status).__name__, result["text"], ended, spoken])

asyncio.run(main())
"""
    assert said(client, script) == ["Completed", "Completed", "d 1st", [499, "client_cancelled"], "WORD"]


@covers("run", "subscribe", "cancel")
def test_every_option(client: Official) -> None:
    script = """
options = dict(hint="warm", start_timeout=60, headers={"x-mine": "1"})
ran = fal_client.run(APP, arguments={"text": "a "}, timeout=60, **options)
subscribed = fal_client.subscribe(
    APP, arguments={"text": "b "}, priority="low", client_timeout=60, with_logs=True, **options
)
slow = fal_client.submit(APP, arguments={}, path="/slow", webhook_url="http://127.0.0.1:9/hook", **options)
fal_client.cancel(APP, slow.request_id)
try:
    fal_client.subscribe(APP, arguments={}, path="/slow", client_timeout=1.5)
except fal_client.FalClientTimeoutError:
    timed_out = True
show([ran["text"], subscribed["text"], timed_out])
"""
    assert said(client, script) == ["a 1st", "b 1st", True]


# A project whose build needs no package index.
BACKEND = """
import io, tarfile, zipfile

ABOUT = "Metadata-Version: 2.1\\nName: mine\\nVersion: 1.0\\n"


def build_sdist(directory, settings=None):
    with tarfile.open(f"{directory}/mine-1.0.tar.gz", "w:gz") as archive:
        for name in ("pyproject.toml", "backend.py"):
            archive.add(name, f"mine-1.0/{name}")
        about = tarfile.TarInfo("mine-1.0/PKG-INFO")
        about.size = len(ABOUT)
        archive.addfile(about, io.BytesIO(ABOUT.encode()))
    return "mine-1.0.tar.gz"


def build_wheel(directory, settings=None, metadata=None):
    with zipfile.ZipFile(f"{directory}/mine-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("mine.py", "WORD = 'from a directory'")
        wheel.writestr("mine-1.0.dist-info/METADATA", ABOUT)
        wheel.writestr("mine-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("mine-1.0.dist-info/RECORD", "")
    return "mine-1.0-py3-none-any.whl"
"""
NEEDS_A_DIRECTORY = """
import fal


class Needing(fal.App, keep_alive=60):
    machine_type = "XS"
    requirements = ["./mine"]

    @fal.endpoint("/")
    def say(self) -> dict:
        import mine

        return {"word": mine.WORD}
"""


@covers("deploy (requirements that are a local directory)")
def test_a_directory_is_sent_along_as_a_requirement(client: Official, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "backend.py").write_text(BACKEND)
    (tmp_path / "mine" / "pyproject.toml").write_text(
        "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
        "[project]\nname = 'mine'\nversion = '1.0'\n"
    )
    (tmp_path / "needing.py").write_text(NEEDS_A_DIRECTORY)
    client.fal("deploy", "needing.py", cwd=tmp_path)
    assert said(client, 'show(fal_client.run("local/needing", arguments={}))') == {"word": "from a directory"}


@covers("fal.apps.ws")
def test_messages_over_a_websocket_are_requests(client: Official) -> None:
    script = """
import os
os.environ["FAL_WS_RUN_HOST"] = os.environ["FAL_RUN_HOST"]
import fal.apps

with fal.apps.ws(APP) as connection:
    one = json.loads(connection.run({"text": "a "}))["text"]
    for word in ("b ", "c "):
        connection.send({"text": word})
    both = [json.loads(connection.recv())["text"] for _ in range(2)]
with fal.apps.ws(APP, path="/stream") as connection:
    connection.send({"text": "s"})
    streamed = b"".join(connection.stream()).decode().count("data: ")
show([one, both, streamed])
"""
    assert said(client, script) == ["a 1st", ["b 1st", "c 1st"], 3]


@covers("the metadata of an app")
def test_the_metadata_of_an_app(official: Official, tiny: str) -> None:
    script = """
import json
from fal.api.client import SyncServerlessClient
from openapi_fal_rest.api.applications import app_metadata

client = SyncServerlessClient()._create_rest_client()
found = app_metadata.sync_detailed(app_alias_or_id="tiny", app_user_id="local", client=client)
print(json.dumps([int(found.status_code), sorted(found.parsed.to_dict()["openapi"]["paths"])]))
"""
    status, paths = official.script(script)
    assert (status, paths) == (200, ["/", "/deaf", "/health", "/realtime", "/slow", "/slow/cancel", "/stream"])


@covers("workflows (publish, list, get, change, run, stream, delete)")
def test_workflows(client: Official) -> None:
    script = """
from fal.api.client import SyncServerlessClient
from fal.workflows import create_workflow
from openapi_fal_rest.api.workflows import delete_workflow, get_workflow, list_user_workflows, update_workflow
from openapi_fal_rest.models.typed_workflow_update import TypedWorkflowUpdate
from pydantic import BaseModel

class Text(BaseModel):
    text: str

workflow = create_workflow("twice", Text, Text)
once = workflow.run(APP, {"text": workflow.input.text})
workflow.set_output({"text": workflow.run(APP, {"text": once.text}).text})
published = workflow.publish("Twice", is_public=False)
rest = SyncServerlessClient()._create_rest_client()
listed = [item.name for item in list_user_workflows.sync(client=rest).items]
update = TypedWorkflowUpdate(title="Two times")
changed = update_workflow.sync_detailed("local", "twice", client=rest, json_body=update).status_code
title = get_workflow.sync("local", "twice", client=rest).title
ran = fal_client.run("workflows/local/twice", arguments={"text": "a "})
subscribed = fal_client.subscribe("workflows/local/twice", arguments={"text": "b "})
try:
    fal_client.subscribe("workflows/local/twice", arguments={})
except fal_client.FalClientHTTPError as error:
    failed = [error.status_code, "local_tiny_1" in str(error)]
events = list(fal_client.stream("workflows/local/twice", arguments={"text": "c "}))
streamed = [[event["type"], event.get("node_id")] for event in events] + [events[-1]["output"]]
deleted = delete_workflow.sync_detailed("local", "twice", client=rest).status_code
show([published, listed, int(changed), title, ran, subscribed, failed, streamed, int(deleted)])
"""
    nodes = [[kind, f"local_tiny_{number}"] for number in (1, 2) for kind in ("submit", "completion")]
    streamed = [*nodes, ["output", None], {"text": "c 1st1st"}]
    both = [{"text": "a 1st1st"}, {"text": "b 1st1st"}]
    assert said(client, script) == ["local/twice", ["twice"], 201, "Two times", *both, [422, True], streamed, 204]


@covers("workflows (webhook)")
def test_the_end_of_a_workflow_is_told_to_a_webhook(client: Official) -> None:
    script = """
import queue, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from fal.workflows import create_workflow
from pydantic import BaseModel

class Text(BaseModel):
    text: str

told = queue.Queue()

class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        told.put([self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))])
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments):
        pass

receiver = HTTPServer(("127.0.0.1", 0), Receiver)
threading.Thread(target=receiver.serve_forever, daemon=True).start()
workflow = create_workflow("told", Text, Text)
workflow.set_output({"text": workflow.run(APP, {"text": workflow.input.text}).text})
name = workflow.publish("Told", is_public=False)
url = f"http://127.0.0.1:{receiver.server_port}/hook"
handle = fal_client.submit(f"workflows/{name}", arguments={"text": "a "}, webhook_url=url)
path, body = told.get(timeout=120)
show([path, body["request_id"] == handle.request_id, body["status"], body["payload"]])
"""
    assert said(client, script) == ["/hook", True, "OK", {"text": "a 1st"}]
