"""Spans of a real controller, decoded by a receiver of OTLP. Cases: direct, queued, WebSockets, the app's parent."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from websockets.sync.client import ClientConnection, connect

from tests.support.controller import running
from tests.support.waiting import until

APP = """
import fal
from fastapi import Request, WebSocket

class Traced(fal.App, name="traced", keep_alive=300):
    machine_type = "XS"
    app_auth = "public"

    @fal.endpoint("/")
    def call(self, request: Request) -> dict:
        return {"parent": request.headers["traceparent"]}

    @fal.endpoint("/talk", is_websocket=True)
    async def talk(self, socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(socket.headers["traceparent"])
        await socket.close()
"""
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
MESSAGES, TALK = "2" * 32, "3" * 32


def test_the_spans_of_requests_reach_a_receiver(tmp_path: Path) -> None:
    spans: list[Span] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            came = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
            spans.extend(s for r in came.resource_spans for scope in r.scope_spans for s in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    def of(trace_id: str) -> dict[str, Span]:
        return {span.name: span for span in spans if span.trace_id.hex() == trace_id}

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "app.py").write_text(APP)
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
        with running(tmp_path / "state", "--traces", url, "--request-payloads") as controller:
            controller.fal("deploy", str(tmp_path / "app.py"))
            first = controller.call("/local/traced/", {}, headers={"traceparent": f"00-{TRACE}-{CALLER}-01"})
            parent = first.json()["parent"].split("-")
            found = until(lambda: of(TRACE), "the spans of the first call come")
            assert set(found) == {"POST traced/", "wait", "start", "app"}
            whole, app = found["POST traced/"], found["app"]
            assert whole.parent_span_id.hex() == CALLER
            assert parent[1:] == [TRACE, app.span_id.hex(), "01"]
            assert {span.parent_span_id for span in found.values()} == {whole.parent_span_id, whole.span_id}
            assert whole.start_time_unix_nano <= found["start"].start_time_unix_nano
            assert found["start"].end_time_unix_nano <= whole.end_time_unix_nano

            # The payload of a direct request is kept here, because this controller was asked to, and says so.
            assert "(--request-payloads)" in controller.fal("status").stdout
            asked = controller.call("/local/traced/", {"prompt": "a", "api_key": "hunter2-hunter2"}, key=controller.key)
            listed = controller.call(
                f"/v1/serverless/requests/by-endpoint?endpoint_id=local/traced&expand=payloads"
                f"&request_id={asked.headers['x-fal-request-id']}",
                key=controller.key,
            ).json()["items"][0]
            assert listed["json_input"] == {"prompt": "a", "api_key": "[redacted]"}
            assert listed["json_output"] == asked.json()
            assert all(b"hunter2" not in file.read_bytes() for file in (tmp_path / "state").glob("fal.db*"))

            left_out = controller.call("/local/traced/", {}, headers={"traceparent": f"00-{'1' * 32}-{CALLER}-00"})
            assert left_out.json()["parent"].endswith("-00")

            queued = controller.call("/queue/local/traced/", {}, key=controller.key).json()["request_id"]
            own = until(lambda: of(queued.replace("-", "")), "the spans of the queued request come")
            assert set(own) == {"POST traced/", "queue", "app"}
            answer = controller.call(f"/queue/local/traced/requests/{queued}", key=controller.key).json()
            assert answer["parent"].split("-")[2] == own["app"].span_id.hex()
            assert of("1" * 32) == {}

            door = f"ws://{controller.host}/local/traced"
            with connect(door + "/talk", additional_headers={"traceparent": f"00-{TALK}-{CALLER}-01"}) as socket:
                told = str(socket.recv()).split("-")
            whole, app = (
                until(lambda: of(TALK), "the spans of a WebSocket come")[x] for x in ("GET traced/talk", "app")
            )
            assert (whole.parent_span_id.hex(), told[2]) == (CALLER, app.span_id.hex())

            with connect(door + "/", additional_headers={"traceparent": f"00-{MESSAGES}-{CALLER}-01"}) as socket:
                parents = [_ask(socket) for _ in range(2)]
            came = until(lambda: _two(spans, MESSAGES), "the spans of both messages come")
            assert {span.span_id.hex() for span in came if span.name == "app"} == set(parents)
            assert {span.parent_span_id.hex() for span in came if span.name == "POST traced/"} == {CALLER}

            def counted(line: str) -> bool:
                return line in controller.call("/metrics", key=controller.key).body.decode()

            # They are counted after the receiver has answered.
            until(lambda: counted("fal_controller_spans_sent_total 19\n"), "all spans are counted")
            assert counted("fal_controller_spans_lost_total 0\n")
    finally:
        server.shutdown()
        server.server_close()


def _ask(socket: ClientConnection) -> str:
    """Send a message. Return the parent's id that the app got with it."""
    socket.send("{}")
    _start, body, _end = (socket.recv() for _ in range(3))
    parent: str = json.loads(body)["parent"]
    return parent.split("-")[2]


def _two(spans: list[Span], trace_id: str) -> list[Span]:
    """Return a trace's spans once those of two messages have come."""
    found = [span for span in spans if span.trace_id.hex() == trace_id]
    return found if len(found) == 6 else []
