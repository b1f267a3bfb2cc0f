"""Notices of a real controller. A failed start is told once, also to a controller that was killed in between."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.controller import start
from tests.support.waiting import until

APP = """
import fal

class Broken(fal.App, name="broken"):
    machine_type = "XS"
    app_auth = "public"

    def setup(self) -> None:
        raise ValueError("no weights")

    @fal.endpoint("/")
    def call(self) -> dict:
        return {}
"""


def test_a_failed_start_is_told_once(tmp_path: Path) -> None:
    messages: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/in?token=secret-of-the-receiver"
    (tmp_path / "app.py").write_text(APP)
    controller = start(tmp_path / "state")
    try:
        controller.fal("notices", "create", "ops", url, "--on", "startup-failure")
        controller.fal("notices", "test", "ops")
        assert messages.pop()["test"] is True
        controller.fal("deploy", str(tmp_path / "app.py"))
        assert controller.call("/local/broken/", {}).status >= 500
        until(lambda: messages, "the receiver is told")
        (problem,) = messages[0]["problems"]
        assert (problem["state"], problem["condition"], problem["subject"]) == ("firing", "startup-failure", "broken")
        assert "no weights" in problem["detail"]
        assert b"secret-of-the-receiver" not in (tmp_path / "state" / "fal.db").read_bytes()

        def told() -> list[dict]:
            return json.loads(controller.fal("notices", "get", "ops", "--json").stdout)["problems"]

        until(lambda: told()[0]["told_at"], "the controller knows that it was told")
        controller.process.kill()
        controller.process.wait()
        controller = start(tmp_path / "state")
        assert told()[0]["told_at"]
        controller.fal("notices", "create", "later", url, "--on", "startup-failure")
        until(lambda: len(messages) == 2, "the new controller has looked")
        assert messages[1]["notice"] == "later"
    finally:
        server.shutdown()
        server.server_close()
        controller.stop()
