"""A log drain with a real controller loses no line. The controller is killed while the receiver holds a delivery."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.controller import Controller, start
from tests.support.waiting import until

APP = """
import fal

class Talker(fal.App, name="talker", keep_alive=300):
    machine_type = "XS"
    app_auth = "public"

    @fal.endpoint("/")
    def say(self) -> dict:
        for number in range(50):
            print(f"line {number}", flush=True)
        return {}
"""
SIGNING_KEY = "signing key of the test, long enough"


class Receiver:
    """An HTTP server that keeps the lines it gets. It can hold its answers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.came = 0
        self.forged = 0
        self.open = threading.Event()
        self.open.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.came += 1
                outer.open.wait()
                wanted = hmac.new(SIGNING_KEY.encode(), body, hashlib.sha256).hexdigest()
                outer.forged += wanted != self.headers["x-fal-signature"]
                outer.lines += [json.loads(line)["message"] for line in body.splitlines()]
                try:
                    self.send_response(204)
                    self.end_headers()
                except OSError:
                    self.close_connection = True  # the controller is dead

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/in"

    def said(self) -> list[str]:
        return [line for line in self.lines if line.startswith("line ")]


@pytest.fixture
def receiver() -> Generator[Receiver]:
    made = Receiver()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.open.set()
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def shown(controller: Controller) -> dict[str, object]:
    (drain,) = json.loads(controller.fal("drains", "list", "--json").stdout)["drains"]
    return drain


def test_a_killed_controller_loses_no_line(tmp_path: Path, receiver: Receiver) -> None:
    controller = start(tmp_path / "state")
    try:
        (tmp_path / "talker.py").write_text(APP)
        controller.fal("deploy", str(tmp_path / "talker.py"))
        controller.fal(
            "drains", "create", "d", receiver.url, "--app", "talker", "--signing-key", stdin=SIGNING_KEY.encode()
        )
        assert controller.call("/local/talker/", {}).status == 200
        until(lambda: len(receiver.said()) == 50, "the first lines arrive")
        until(lambda: shown(controller)["unsent_lines"] == 0, "the cursor has moved")

        receiver.open.clear()
        came = receiver.came
        assert controller.call("/local/talker/", {}).status == 200
        until(lambda: receiver.came > came, "the receiver has the next lines, and says nothing")
        controller.process.kill()
        controller.process.wait()
        receiver.open.set()
        controller = start(tmp_path / "state")
        whole = [f"line {number}" for number in range(50)]
        # Lines that the dead controller had sent come again; the last ones are still complete and in order.
        until(lambda: receiver.said()[50:][-50:] == whole, "everything arrives")
        assert receiver.said()[:50] == whole
        until(lambda: shown(controller)["unsent_lines"] == 0, "the cursor has moved")
        assert shown(controller)["lost_lines"] == 0
        assert receiver.forged == 0
        assert SIGNING_KEY.encode() not in b"".join(path.read_bytes() for path in (tmp_path / "state").glob("fal.db*"))
    finally:
        if controller.process.poll() is None:
            assert controller.stop() == 0
