"""`@fal-ai/client` in Node, as in a page. It reaches this controller only by `proxyUrl`."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping

import pytest

from tests.interop.conftest import SAMPLES
from tests.interop.records import covers
from tests.support.controller import ROOT, Controller
from tests.support.official import Official

PACKAGES = ROOT / ".cache" / "interop-javascript"
# With a `window` the client behaves as in a page. Its credentials are the page's.
HEAD = """
globalThis.window = { document: {} };
const { createFalClient } = await import("@fal-ai/client");
const { URL_OF_PROXY: proxyUrl, KEY: credentials } = process.env;
const fal = createFalClient({ proxyUrl, credentials, suppressLocalCredentialsWarning: true });
const APP = "local/page";
function show(value) { console.log(JSON.stringify(value)); }
async function refused(call) {
  try { await call(); } catch (error) { return [error.status, error.body?.detail ?? String(error)]; }
}
"""


@pytest.fixture(scope="module")
def page(controller: Controller, official: Official) -> Controller:
    """Return the controller, with a private app that the official client deployed."""
    official.fal("deploy", SAMPLES / "tiny.py", "--app-name", "page", "--auth", "private")
    return controller


def run(controller: Controller, script: str, key: str | None = None) -> object:
    """Run JavaScript of a page; return the JSON in its last line."""
    variables = {"URL_OF_PROXY": f"http://{controller.host}/proxy", **({"KEY": key} if key else {})}
    return json.loads(node(HEAD + script, variables).splitlines()[-1])


def node(script: str, variables: Mapping[str, str]) -> str:
    """Run JavaScript beside the packages; return its output. The timeout only guards against hanging."""
    done = subprocess.run(
        ["node", "--input-type=module"],
        input=script,
        cwd=PACKAGES,
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@covers("fal.run", "fal.subscribe", "fal.queue")
def test_calls_and_the_queue(page: Controller) -> None:
    script = """
const ran = await fal.run(APP, { input: { text: "a " } });
const states = [];
const done = await fal.subscribe(APP, {
  input: { text: "b " }, logs: true, onQueueUpdate: (update) => states.push(update.status),
});
const streamed = await fal.subscribe(APP, { input: { text: "c " }, mode: "streaming" });
const { request_id: requestId } = await fal.queue.submit(APP, { input: { text: "d " } });
await fal.queue.subscribeToStatus(APP, { requestId });
const status = await fal.queue.status(APP, { requestId, logs: true });
const got = await fal.queue.result(APP, { requestId });
const slow = await fal.queue.submit(`${APP}/slow`, { input: {} });
await fal.queue.cancel(APP, { requestId: slow.request_id });
show({
  texts: [ran, done, streamed, got].map((answer) => answer.data.text),
  ids: [got.requestId === requestId, ran.requestId.length],
  last: states.at(-1), status: status.status, logs: status.logs.some((line) => line.message.includes("echo d")),
});
"""
    assert run(page, script, page.key) == {
        "texts": ["a 1st", "b 1st", "c 1st", "d 1st"],
        "ids": [True, 36],
        "last": "COMPLETED",
        "status": "COMPLETED",
        "logs": True,
    }


@covers("fal.stream")
def test_a_stream(page: Controller) -> None:
    script = """
const stream = await fal.stream(APP, { input: { text: "s" } });
const numbers = [];
for await (const event of stream) numbers.push(event.number);
show([numbers, (await stream.done()).text]);
"""
    assert run(page, script, page.key) == [[0, 1, 2], "s"]


@covers("fal.storage.upload")
def test_an_upload(page: Controller) -> None:
    script = """
const url = await fal.storage.upload(new Blob(["content"], { type: "text/plain" }));
show([new URL(url).host === new URL(proxyUrl).host, await (await fetch(url)).text()]);
"""
    assert run(page, script, page.key) == [True, "content"]


def test_without_the_page_s_key_nothing_opens(page: Controller) -> None:
    script = """
show([
  await refused(() => fal.run(APP, { input: {} })),
  await refused(() => fal.queue.submit(APP, { input: {} })),
  await refused(() => fal.storage.upload(new Blob(["x"]))),
]);
"""
    for key in (None, "unknown:key"):
        answers = run(page, script, key)
        assert isinstance(answers, list)
        assert [answer[0] for answer in answers] == [401, 401, 401], answers


def test_the_door_leads_nowhere_else(page: Controller) -> None:
    script = """
const headers = { authorization: `Key ${credentials}`, "x-fal-target-url": "https://example.com/" };
const answer = await fetch(proxyUrl, { headers });
show([answer.status, (await answer.json()).detail.includes("https://fal.run")]);
"""
    assert run(page, script, page.key) == [403, True]


def test_the_page_of_the_documentation_works(page: Controller, official: Official) -> None:
    official.fal("deploy", ROOT / "examples" / "hello.py", "--auth", "private")
    text = (ROOT / "docs" / "howto" / "javascript.md").read_text()
    block, _ = re.findall(r"^```js\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    block = block.replace("127.0.0.1:7400", page.host).replace("ID:SECRET", page.key)
    said = node(f"globalThis.window = {{ document: {{}} }};\n{block}", {})
    assert "Hello, Ada!" in said
    assert "COMPLETED" in said
    assert f"Hello, http://{page.host}/storage/" in said
