"""The queue with a real controller and real runners. No accepted request is lost, whatever dies."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.support.controller import Controller, start
from tests.support.queue import Queue
from tests.support.waiting import until


@pytest.fixture(scope="module")
def deployed(controller: Controller, tmp_path_factory: pytest.TempPathFactory) -> Queue:
    return Queue(controller, "queued", tmp_path_factory.mktemp("queued")).deploy()


@pytest.fixture
def queue(deployed: Queue, tmp_path: Path) -> Generator[Queue]:
    """Return the app's queue, with the test's own records and gate."""
    yield Queue(deployed.controller, deployed.app, tmp_path)
    (tmp_path / "gate").touch()


def test_submit_status_result(queue: Queue) -> None:
    submitted = queue.submitted("one", gate=str(queue.gate))
    submission = submitted.json()
    base = f"http://{queue.controller.host}/queue/local/queued/requests/{submission['request_id']}"
    assert (submission["response_url"], submission["status_url"], submission["cancel_url"]) == (
        base,
        f"{base}/status",
        f"{base}/cancel",
    )
    assert submission["queue_position"] == 0
    assert submitted.headers["x-fal-request-id"] == submission["request_id"]
    request_id = submission["request_id"]
    assert queue.noted("one")[1] == request_id

    working = queue.status(request_id)
    assert (working.status, working.json()["status"], working.json()["logs"]) == (202, "IN_PROGRESS", None)
    early = queue.result(request_id)
    assert (early.status, early.headers["x-fal-error-type"]) == (400, "bad_request")
    assert "still in progress" in early.json()["detail"]

    queue.gate.touch()
    result = queue.finished(request_id)
    assert (result.status, result.json()) == (200, {"word": "one", "authorization": None})
    assert result.headers["x-fal-request-id"] == request_id
    for path in ("", "/"):
        assert queue.call(f"/queue/local/queued/requests/{request_id}{path}").body == result.body
    done = queue.call(f"/queue/local/queued/some/path/requests/{request_id}/status/").json()
    assert (done["status"], done["logs"], "error" in done) == ("COMPLETED", None, False)
    assert done["metrics"]["inference_time"] >= 0

    def logged() -> bool:
        lines = queue.status(request_id, "?logs=1").json()["logs"]
        return any(line["message"] == "noted one" for line in lines)

    until(logged, "the request's lines are in its status")


def test_a_queue_host_needs_no_prefix_and_tells_none(queue: Queue) -> None:
    host = f"queue.localhost:{queue.controller.port}"
    asked = {"word": "named", "notes": str(queue.notes_file)}
    submission = queue.call("/local/queued/note", asked, headers={"Host": host}).json()
    assert submission["status_url"] == f"http://{host}/local/queued/requests/{submission['request_id']}/status"
    assert queue.finished(submission["request_id"]).status == 200
    path = submission["status_url"].removeprefix(f"http://{host}")
    assert queue.call(path, headers={"Host": host}).json()["response_url"] == submission["response_url"]


def test_the_status_stream_ends_with_the_request(queue: Queue) -> None:
    request_id = queue.submit("streamed", gate=str(queue.gate))
    queue.noted("streamed")
    with ThreadPoolExecutor(1) as pool:
        stream = pool.submit(queue.call, f"/queue/local/queued/requests/{request_id}/status/stream?logs=1")
        queue.gate.touch()
        answer = stream.result(60)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in answer.body.decode().splitlines() if line.startswith("data: ")]
    assert events[-1]["status"] == "COMPLETED"
    assert all(event["request_id"] == request_id for event in events)


def test_who_may_ask_and_what_is_not_there(queue: Queue) -> None:
    controller = queue.controller
    assert controller.call("/queue/local/queued/note", {}).status == 401
    assert controller.call("/queue/local/queued/note", {}, key="no:body").status == 401
    assert queue.call("/queue/local/nothing", {}).status == 404
    assert queue.status("00000000-0000-4000-8000-000000000000").status == 404
    assert queue.call("/queue/local/queued/requests/x/cancel", method="PUT").json()["status"] == "NOT_FOUND"
    assert queue.call("/queue/local/queued/note", method="GET").status == 405
    for query, headers in (
        ("", {"X-Fal-Queue-Priority": "urgent"}),
        ("", {"X-Fal-Request-Timeout": "never"}),
        ("?fal_webhook=file:///etc/passwd", {}),
    ):
        refused = queue.submitted("no", query=query, headers=headers)
        assert (refused.status, refused.headers["x-fal-error-type"]) == (400, "bad_request")
    assert not queue.notes()


def test_a_key_that_may_call_apps_may_queue_but_not_manage(queue: Queue) -> None:
    made = json.loads(queue.controller.fal("keys", "create", "--scope", "API", "--json").stdout)
    key = f"{made['key_id']}:{made['key_secret']}"
    body = {"word": "mine", "notes": str(queue.notes_file)}
    answer = queue.controller.call("/queue/local/queued/note", body, key=key)
    assert answer.status == 200
    queue.finished(str(answer.json()["request_id"]))
    for path, method in (("", "GET"), ("", "DELETE"), ("/requests", "GET")):
        refused = queue.controller.call(f"/applications/local/queued/queue{path}", key=key, method=method)
        assert (refused.status, "Insufficient permissions" in refused.json()["detail"]) == (403, True)
    unknown = queue.call("/applications/local/none/queue")
    assert (unknown.status, "app 'none' not found" in unknown.json()["detail"]) == (404, True)
    assert queue.call("/applications/other/queued/queue").status == 404
    assert queue.controller.call("/applications/local/queued/queue").status == 401


def test_cancel_while_it_waits_and_while_it_runs(queue: Queue) -> None:
    queue.scale(max_concurrency=1)
    running = queue.submit("running", gate=str(queue.gate))
    queue.noted("running")
    waiting = queue.submit("waiting")
    assert queue.status(waiting).json()["status"] == "IN_QUEUE"
    for request_id in (waiting, running):
        answer = queue.call(f"/queue/local/queued/requests/{request_id}/cancel", method="PUT")
        assert (answer.status, answer.json()["status"]) == (202, "CANCELLATION_REQUESTED")
    done = queue.status(waiting).json()
    assert (done["status"], done["error_type"]) == ("COMPLETED", "client_cancelled")
    assert queue.state(running) == "IN_PROGRESS"  # the app has no endpoint for it
    queue.gate.touch()
    assert queue.finished(running).json()["word"] == "running"
    again = queue.call(f"/queue/local/queued/requests/{running}/cancel", method="PUT")
    assert (again.status, again.json()["status"]) == (400, "ALREADY_COMPLETED")
    assert [note[0] for note in queue.notes()] == ["running"]


def test_low_priority_waits_and_the_size_is_told(queue: Queue) -> None:
    queue.scale(max_concurrency=1)
    queue.submit("first", gate=str(queue.gate))
    queue.noted("first")
    low = queue.submit("low", headers={"X-Fal-Queue-Priority": "low"})
    normal = queue.submit("normal")
    assert [queue.status(one).json()["queue_position"] for one in (normal, low)] == [0, 1]
    size = json.loads(queue.controller.fal("queue", "size", "queued", "--by-user", "--json").stdout)
    assert size == {"size": 2, "by_user": {queue.controller.key.partition(":")[0]: 2}}
    assert queue.controller.fal("queue", "size", "queued").stdout == "Total queue size: 2\n"
    queue.gate.touch()
    queue.finished(low)
    assert [note[0] for note in queue.notes()] == ["first", "normal", "low"]


def test_flush_and_list(queue: Queue) -> None:
    queue.scale(max_concurrency=1)
    first = queue.submit("held", gate=str(queue.gate))
    queue.noted("held")
    waiting = queue.submit("flushed")
    for arguments in (["--caller-user-id", ""], ["--caller-user-id="]):
        nobody = queue.controller.fal("queue", "flush", "queued", *arguments, check=False)
        assert (nobody.returncode, "it is empty: give one" in nobody.stderr) == (2, True)
    others = queue.controller.fal("queue", "flush", "queued", "--caller-user-id", "nobody")
    assert others.stdout == "No request of nobody waits for 'queued'.\n"
    assert queue.state(waiting) == "IN_QUEUE", "an unset variable flushes nothing"
    assert queue.controller.fal("queue", "flush", "queued").stdout == "Queue flushed successfully.\n"
    assert queue.about(waiting)["error_type"] == "client_cancelled"
    assert queue.state(first) == "IN_PROGRESS"
    assert queue.controller.fal("queue", "flush", "queued").stdout == "Nothing waits for 'queued'.\n"
    listed = json.loads(queue.controller.fal("queue", "list", "queued", "--state", "in_progress", "--json").stdout)
    assert [request["request_id"] for request in listed["requests"]] == [first]
    limited = queue.controller.fal("queue", "list", "queued", "--limit", "1")
    assert waiting in limited.stdout
    assert "There may be more than the newest 1; --limit lists at most 1000." in limited.stderr
    told = queue.controller.fal("queue", "cancel", "queued", waiting, "nosuch", first, check=False)
    assert told.returncode == 1
    assert told.stdout == f"Asked the app to cancel {first}, which is in progress: it may finish all the same\n"
    assert f"request {waiting} is completed: there is nothing to cancel" in told.stderr
    assert "`fal queue list queued` shows which exist" in told.stderr
    queue.gate.touch()
    assert queue.finished(first).status == 200


def test_an_idempotency_key_is_one_request(queue: Queue) -> None:
    headers = {"Idempotency-Key": f"key-{os.getpid()}"}
    first = queue.submit("once", headers=headers)
    assert queue.submit("once", headers=headers) == first
    queue.finished(first)
    assert queue.submit("once", headers=headers) == first
    assert queue.submitted("twice", headers=headers).status == 422
    assert [note[0] for note in queue.notes()] == ["once"]


def test_a_runner_killed_in_the_middle_costs_an_attempt_only(queue: Queue) -> None:
    request_id = queue.submit("killed", gate=str(queue.gate))
    pid = queue.noted("killed")[2]
    os.kill(int(pid), signal.SIGKILL)
    again = queue.noted("killed", times=2)
    assert (again[1], again[2] != pid) == (request_id, True)
    queue.gate.touch()
    assert queue.finished(request_id).status == 200
    assert queue.about(request_id)["attempt"] == 2


def test_what_was_given_up_is_listed_and_can_be_queued_again(queue: Queue) -> None:
    request_id = queue.submit("dead", status=503, headers={"X-Fal-No-Retry": "1"})
    result = queue.finished(request_id)
    assert (result.status, result.json()) == (503, {"detail": "as you asked"})
    listed = json.loads(queue.controller.fal("queue", "list", "queued", "--dead", "--json").stdout)["requests"]
    assert request_id in [request["request_id"] for request in listed]
    queue.controller.fal("queue", "redrive", "queued", request_id)
    queue.noted("dead", times=2)
    assert queue.finished(request_id).status == 503
    refused = queue.controller.fal("queue", "redrive", "queued", check=False)
    assert refused.returncode == 2


@pytest.fixture
def receiver() -> Generator[tuple[str, Callable[[], list[tuple[dict[str, str], bytes]]]]]:
    """Run a server that takes webhooks. Yield its address and what it received."""
    calls: list[tuple[dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            calls.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing; the test checks."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook?a=1", lambda: list(calls)
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_webhook_is_signed(queue: Queue, receiver) -> None:
    from urllib.parse import quote

    url, calls = receiver
    request_id = queue.submit("hooked", query=f"?fal_webhook={quote(url, safe='')}")
    until(lambda: len(calls()) == 1, "the webhook is called")
    headers, body = calls()[0]
    assert json.loads(body) == {
        "request_id": request_id,
        "gateway_request_id": request_id,
        "status": "OK",
        "payload": {"word": "hooked", "authorization": None},
        "error": None,
    }
    # Verify like receivers, by docs/reference/queue.md.
    signed = "\n".join(
        (
            headers["x-fal-webhook-request-id"],
            headers["x-fal-webhook-user-id"],
            headers["x-fal-webhook-timestamp"],
            hashlib.sha256(body).hexdigest(),
        )
    ).encode()
    (key,) = queue.controller.call("/.well-known/jwks.json").json()["keys"]
    from base64 import urlsafe_b64decode

    public = Ed25519PublicKey.from_public_bytes(urlsafe_b64decode(key["x"] + "=="))
    public.verify(bytes.fromhex(headers["x-fal-webhook-signature"]), signed)
    assert headers["x-fal-webhook-request-id"] == request_id
    until(lambda: queue.about(request_id)["webhook"] == "delivered", "the delivery is noted")
    (delivery,) = queue.about(request_id)["deliveries"]
    assert (delivery["number"], delivery["status"], delivery["error"]) == (1, 200, None)


def test_what_was_accepted_survives_the_end_of_the_controller(tmp_path: Path) -> None:
    first = start(tmp_path / "state")
    try:
        queue = Queue(first, "survivor", tmp_path).deploy()
        made = [queue.submit(f"w{number}", gate=str(queue.gate)) for number in range(20)]
        queue.noted("w0")
        before = queue.runner_ids()
    finally:
        first.process.kill()
        first.process.wait()

    second = start(tmp_path / "state")
    try:
        queue = Queue(second, "survivor", tmp_path)
        assert queue.runner_ids() == before
        assert {queue.state(request_id) for request_id in made} <= {"IN_QUEUE", "IN_PROGRESS"}
        queue.gate.touch()
        for number, request_id in enumerate(made):
            result = queue.finished(request_id)
            assert (result.status, result.json()["word"]) == (200, f"w{number}")
        assert queue.about(made[0])["attempt"] == 2
        assert queue.about(made[-1])["attempt"] == 1

        queue.scale(max_concurrency=0, keep_alive=0)
        until(lambda: not queue.runner_ids(), "the runners end")
        kept = [queue.submit(f"kept{number}") for number in range(3)]
        assert {queue.state(request_id) for request_id in kept} == {"IN_QUEUE"}
    finally:
        assert second.stop() == 0

    third = start(tmp_path / "state")
    try:
        queue = Queue(third, "survivor", tmp_path)
        assert not [note for note in queue.notes() if note[0].startswith("kept")]
        queue.scale(max_concurrency=1)
        for request_id in kept:
            assert queue.finished(request_id).status == 200
        assert [note[0] for note in queue.notes()][-3:] == ["kept0", "kept1", "kept2"]
    finally:
        third.stop()
