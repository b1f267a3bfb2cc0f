"""Direct calls with a real controller and runners. Covers each kind of answer, multiplexing, and bodies of any size."""

from __future__ import annotations

import http.client
import json
import socket
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from fal.api import SyncServerlessClient
from fal_grpc.adapter.runner import RunnerState
from tests.support.controller import ROOT, Answer, Controller
from tests.support.waiting import until

APP = ROOT / "tests" / "support" / "gateway_app.py"
LARGE = 200_000_000
# Far less than a body in memory, far more than the allocator takes in a busy process.
GROWTH = 32_000_000


@dataclass
class App:
    """A deployed app."""

    controller: Controller
    name: str

    def call(self, path: str, body: object = None, headers: dict[str, str] | None = None) -> Answer:
        return self.controller.call(f"/local/{self.name}{path}", {} if body is None else body, headers=headers)

    def runners(self) -> dict[str, str]:
        """Return the states of the serving runners, by id."""
        listed = json.loads(self.controller.fal("runners", "list", "--json").stdout)["runners"]
        return {r["runner_id"]: r["state"] for r in listed if r["alias"] == self.name}

    def the_runner(self) -> str:
        """Return the id of the serving runner. Start one if none serves."""
        # One that has answered 502 keeps its slot until it is known to accept connections.
        until(lambda: "RUNNING" not in self.runners().values(), "no request is in flight")
        assert self.call("/answer").status == 200
        (runner_id,) = [one for one, state in self.runners().items() if state in ("IDLE", "RUNNING")]
        return runner_id

    def scale(self, **settings: int) -> None:
        flags = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        self.controller.fal("apps", "scale", self.name, *flags)


@pytest.fixture(scope="module")
def app(controller: Controller) -> Generator[App]:
    controller.fal("deploy", str(APP), "--app-name", "gateway", "--auth", "public")
    yield App(controller, "gateway")
    controller.fal("apps", "delete", "gateway")


@dataclass(frozen=True, kw_only=True)
class Row:
    """An instruction for the app, and its consequences.

    Attributes:
        status: None if the client gets no complete answer.
        ends: why the runner ends; empty if it stays.
    """

    path: str = "/answer"
    answers: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    status: int | None
    error_type: str | None = None
    ends: str = ""

    def __str__(self) -> str:
        return "-".join([self.path[1:], str(self.answers), *(f"{k}={v}" for k, v in self.headers.items())])


BROKE, ANSWERED = "it broke the connection of request", "it answered 503 to request"
ASKED = "the app asked for it"
STOP, RETRY, NO_RETRY = {"x-fal-stop-runner": "1"}, {"x-fal-needs-retry": "1"}, {"x-fal-needs-retry": "0"}
ROWS = [
    Row(answers=200, status=200),
    Row(answers=304, status=304),
    Row(answers=404, status=404),
    Row(answers=429, headers=RETRY, status=429),
    Row(answers=500, status=500, error_type="runner_server_error"),
    Row(answers=500, headers={"x-fal-error-type": "bad_request"}, status=500, error_type="bad_request"),
    Row(answers=502, status=502, error_type="runner_server_error"),
    Row(answers=504, status=504, error_type="request_timeout"),
    Row(answers=503, status=503, error_type="runner_server_error", ends=ANSWERED),
    Row(answers=503, headers=NO_RETRY, status=503, error_type="runner_server_error", ends=ANSWERED),
    Row(answers=200, headers=STOP, status=200, ends=ASKED),
    Row(answers=404, headers=STOP, status=404, ends=ASKED),
    Row(answers=500, headers=STOP, status=500, error_type="runner_server_error", ends=ASKED),
    Row(path="/deaf", answers=502, status=502, error_type="runner_server_error", ends=BROKE),
    Row(path="/deaf", answers=504, status=504, error_type="request_timeout", ends=BROKE),
    Row(path="/deaf", answers=500, status=500, error_type="runner_server_error"),
    Row(path="/die", status=503, error_type="runner_disconnected", ends="worker exited with code"),
    Row(path="/half", status=None, ends=BROKE),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_what_becomes_of_an_answer(app: App, row: Row) -> None:
    runner_id = app.the_runner()
    body = {"status": row.answers, "headers": row.headers}
    if row.status is None:
        with pytest.raises(http.client.IncompleteRead):
            app.call(row.path, body)
    else:
        answer = app.call(row.path, body)
        assert (answer.status, answer.headers.get("x-fal-error-type")) == (row.status, row.error_type)
        assert answer.headers["x-fal-request-id"]
        assert "x-fal-stop-runner" not in answer.headers
    if not row.ends:
        assert app.runners()[runner_id] in ("IDLE", "RUNNING")
        if row.path == "/deaf":  # it was not checked whether it accepts connections, and no other request can use it
            app.controller.fal("runners", "kill", runner_id)
        return
    with SyncServerlessClient(host=app.controller.host, api_key=app.controller.key) as client:
        until(lambda: client.runners.get(runner_id).state is RunnerState.TERMINATED, "the runner ends")
        assert row.ends in str(client.runners.get(runner_id).external_metadata["reason"])


def test_a_request_that_takes_too_long_and_one_that_never_begins(app: App, tmp_path: Path) -> None:
    runner_id = app.the_runner()
    app.scale(request_timeout=2, max_concurrency=1)
    held = {"entered": str(tmp_path / "entered"), "gate": str(tmp_path / "gate")}
    try:
        with ThreadPoolExecutor(1) as pool:
            long = pool.submit(app.call, "/held", held)
            until((tmp_path / "entered").exists, "the request is on the runner")
            late = app.call("/answer", headers={"X-Fal-Request-Timeout": "0.1"})
            assert (late.status, late.headers["x-fal-error-type"]) == (504, "request_timeout")
            assert late.headers["x-fal-request-timeout-type"] == "user"
            cut = long.result(60)
        assert (cut.status, cut.headers["x-fal-error-type"]) == (504, "request_timeout")
        assert "x-fal-request-timeout-type" not in cut.headers
        assert "request_timeout of 2 s" in cut.body.decode()
        with SyncServerlessClient(host=app.controller.host, api_key=app.controller.key) as client:
            until(lambda: client.runners.get(runner_id).state is RunnerState.TERMINATED, "the runner ends")
    finally:
        (tmp_path / "gate").touch()
        app.scale(request_timeout=3600, max_concurrency=2)


def test_multiplexing_is_exact_and_the_least_busy_runner_is_next(app: App, tmp_path: Path) -> None:
    app.the_runner()
    app.scale(max_multiplexing=3, max_concurrency=2)
    counts, gate = tmp_path / "counts", tmp_path / "gate"

    def seen() -> list[tuple[str, int]]:
        lines = counts.read_text().splitlines() if counts.exists() else []
        return [(pid, int(count)) for pid, count in map(str.split, lines)]

    try:
        with ThreadPoolExecutor(14) as pool:
            asked = [{"entered": str(tmp_path / f"{n}"), "gate": str(gate), "counts": str(counts)} for n in range(14)]
            answers = [pool.submit(app.call, "/held", one) for one in asked]
            until(lambda: len(seen()) == 6, "both runners are full")
            full = seen()
            gate.touch()
            assert [answer.result(60).status for answer in answers] == [200] * 14
    finally:
        gate.touch()
        app.scale(max_multiplexing=1, max_concurrency=2)
    assert set(Counter(pid for pid, _ in full).values()) == {3}
    assert len(seen()) == 14
    assert max(count for _, count in seen()) == 3


@pytest.mark.parametrize("slow", [False, True])
def test_a_large_answer_is_not_kept_in_memory(app: App, slow: bool) -> None:
    assert app.call("/answer").status == 200
    controller = psutil.Process(app.controller.process.pid)
    before = controller.memory_info().rss
    peak = 0
    with socket.create_connection(("127.0.0.1", app.controller.port), timeout=60) as connection:
        head = f"POST /local/gateway/give?bytes={LARGE} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        connection.sendall(head.encode())
        # In small chunks at first: if everything were read, the app could send all of it in that time.
        little = 20_000 if slow else 0
        received = 0
        while received < LARGE:
            data = connection.recv(1 << 20 if little == 0 else 256)
            assert data
            little -= little > 0
            received += len(data)
            peak = max(peak, controller.memory_info().rss)
    assert peak - before < GROWTH


@pytest.mark.parametrize("slow", [False, True])
def test_a_large_body_is_not_kept_in_memory(app: App, slow: bool, tmp_path: Path) -> None:
    assert app.call("/answer").status == 200
    gate = tmp_path / "gate"
    controller = psutil.Process(app.controller.process.pid)
    before = controller.memory_info().rss
    peak = 0
    part = bytes(1_000_000)
    with socket.create_connection(("127.0.0.1", app.controller.port), timeout=0.5) as connection:
        query = f"?gate={gate}" if slow else ""
        head = f"POST /local/gateway/take{query} HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGE}\r\n\r\n"
        connection.sendall(head.encode())
        sent = 0
        while sent < LARGE:
            try:
                sent += connection.send(part[: LARGE - sent])
            except TimeoutError:  # the app reads nothing before the gate opens, so nothing more is accepted
                assert slow
                assert sent < LARGE / 2
                gate.touch()
                connection.settimeout(60)
            peak = max(peak, controller.memory_info().rss)
        connection.settimeout(60)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert json.loads(answer.read()) == {"size": LARGE}
    assert peak - before < GROWTH
