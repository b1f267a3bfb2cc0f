"""`@fal-ai/client` in Chromium, in a page of another origin. It reaches this controller only by `proxyUrl`."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import SAMPLES
from tests.interop.records import covers
from tests.support.browser import Page, browser
from tests.support.controller import ROOT, Controller
from tests.support.official import Official

PACKAGES = ROOT / ".cache" / "interop-javascript"
HTML = (
    '<!doctype html><title>A page of somebody</title><link rel="icon" href="data:,"><script src="client.js"></script>'
)


class Quiet(SimpleHTTPRequestHandler):
    """Does not log requests."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of another web server. A page there has the published package."""
    place = tmp_path_factory.mktemp("page")
    (place / "index.html").write_text(HTML)
    bundle(place / "client.js")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(place))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def bundle(target: Path) -> None:
    """Bundle the published package and its dependencies, like a page's author."""
    subprocess.run(
        [
            *(
                "node_modules/.bin/esbuild",
                "node_modules/@fal-ai/client/src/index.js",
                "--bundle",
                "--platform=browser",
            ),
            *("--format=iife", "--global-name=published", "--log-level=error", f"--outfile={target}"),
        ],
        cwd=PACKAGES,
        check=True,
    )


@pytest.fixture(scope="module")
def page(controller: Controller, official: Official, origin: str) -> Iterator[Page]:
    """Return a page whose client has the controller's proxy address and key. It has a private app."""
    official.fal("deploy", SAMPLES / "tiny.py", "--app-name", "browsed", "--auth", "private")
    settings = {
        "proxyUrl": f"http://{controller.host}/proxy",
        "credentials": controller.key,
        "suppressLocalCredentialsWarning": True,
    }
    with browser() as page:
        page.open(origin)
        page.run(f"fal = published.createFalClient({json.dumps(settings)}); APP = 'local/browsed'; 0")
        yield page
        assert page.problems == []


def run(page: Page, script: str) -> Any:
    """Run a function's body in the page; return its result."""
    return page.run(f"(async () => {{ {script} }})()")


@covers("fal.run", "fal.subscribe", "fal.queue")
def test_calls_and_the_queue(page: Page) -> None:
    script = """
const ran = await fal.run(APP, { input: { text: "a " } });
const states = [];
const done = await fal.subscribe(APP, {
  input: { text: "b " }, logs: true, onQueueUpdate: (update) => states.push(update.status),
});
const { request_id: requestId } = await fal.queue.submit(APP, { input: { text: "c " } });
await fal.queue.subscribeToStatus(APP, { requestId, mode: "streaming" });
const got = await fal.queue.result(APP, { requestId });
const slow = await fal.queue.submit(`${APP}/slow`, { input: {} });
await fal.queue.cancel(APP, { requestId: slow.request_id });
return [[ran, done, got].map((answer) => answer.data.text), states.at(-1), got.requestId === requestId];
"""
    assert run(page, script) == [["a 1st", "b 1st", "c 1st"], "COMPLETED", True]


@covers("fal.stream")
def test_a_stream(page: Page) -> None:
    script = """
const stream = await fal.stream(APP, { input: { text: "s" } });
const numbers = [];
for await (const event of stream) numbers.push(event.number);
return [numbers, (await stream.done()).text];
"""
    assert run(page, script) == [[0, 1, 2], "s"]


@covers("fal.storage.upload")
def test_an_upload(page: Page) -> None:
    script = """
const url = await fal.storage.upload(new Blob(["content"], { type: "text/plain" }));
return await (await fetch(url)).text();
"""
    assert run(page, script) == "content"


@covers("fal.realtime")
def test_realtime_with_the_lines_of_the_documentation(controller: Controller, page: Page) -> None:
    text = (ROOT / "docs" / "howto" / "javascript.md").read_text()
    _, lines = re.findall(r"^```js\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = lines.replace("127.0.0.1:7400", controller.host).replace("local/hello", "local/browsed")
    script = f"""
return await new Promise((done, failed) => {{
  const got = (result) => done(result.text);
  {lines.replace("console.log(result)", "got(result)").replace("console.error(error)", "failed(error)")}
}});
"""
    assert run(page, script) == "ADA "


def test_without_a_key_nothing_opens(controller: Controller, page: Page) -> None:
    script = f"""
const nobody = published.createFalClient({{ proxyUrl: "http://{controller.host}/proxy" }});
const refused = async (call) => {{ try {{ await call(); }} catch (error) {{ return error.status; }} }};
return [
  await refused(() => nobody.run(APP, {{ input: {{}} }})),
  await refused(() => nobody.storage.upload(new Blob(["x"]))),
];
"""
    assert run(page, script) == [401, 401]
    page.problems[:] = [each for each in page.problems if "401" not in each]
