"""An app in an environment without `fal`. It answers, and starts and stops in the right order."""

from __future__ import annotations

import json
import re
import signal
import threading

import httpx
import pytest

APP = """
from __future__ import annotations

import functools
import threading
from contextvars import ContextVar

import fal
from fastapi import WebSocket
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

lock = threading.Lock()
reentrant = threading.RLock()


class Input(BaseModel):
    name: str = Field(default="world")
    parts: list[Input] = []


class Output(BaseModel):
    text: str


@functools.lru_cache(maxsize=3)
def doubled(number: int) -> int:
    return 2 * number


class Sample(fal.App):
    version = "7"

    def setup(self) -> None:
        self.greeting = "hello"
        self.entered = threading.Event()
        self.leave = threading.Event()
        print("setup")

    async def teardown(self) -> None:
        print("teardown")

    def handle_exit(self) -> None:
        print("handle_exit")
        self.leave.set()

    def provide_hints(self) -> list[str]:
        return ["model-a", "model-b"]

    @fal.endpoint("/")
    def greet(self, request: Input) -> Output:
        with lock, reentrant:
            return Output(text=f"{self.greeting} {request.name} {doubled(21)} {len(request.parts)}")

    @fal.endpoint("/who")
    def who(self) -> dict[str, str | None]:
        request = fal.current_request()
        assert request is self.current_request
        return {"id": request.request_id, "endpoint": request.endpoint}

    @fal.endpoint("/bug")
    async def bug(self) -> None:
        raise ValueError("a bug in the app")

    @fal.endpoint("/gpu")
    def gpu(self) -> None:
        raise RuntimeError("CUDA error: out of memory")

    @fal.endpoint("/refuse")
    def refuse(self) -> None:
        from fal.exceptions import AppException

        raise AppException("not today", status_code=418)

    @fal.endpoint("/field")
    def field(self) -> None:
        from fal.exceptions import FieldException

        raise FieldException("name", "too short", billable_units=2)

    @fal.endpoint("/numbers")
    def numbers(self) -> StreamingResponse:
        return StreamingResponse((f"data: {n}\\n\\n" for n in range(3)), media_type="text/event-stream")

    @fal.endpoint("/cut")
    def cut(self) -> StreamingResponse:
        def broken():
            yield "started"
            raise ValueError("broken off")

        return StreamingResponse(broken())

    @fal.endpoint("/slow")
    def slow(self) -> str:
        print("slow started", flush=True)
        self.leave.wait(30)
        return "finished"

    @fal.endpoint("/socket", is_websocket=True)
    async def socket(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()
"""


@pytest.fixture(scope="module")
def app(start_shared):
    return start_shared(APP)


def test_answers(app):
    answer = app.post("/", json={"name": "Ada", "parts": [{}]})
    assert (answer.status_code, answer.json()) == (200, {"text": "hello Ada 42 1"})
    assert answer.headers["x-fal-runner-hints"] == "model-a,model-b"
    assert app.get("/health").json() == {"version": "7"}
    described = app.get("/openapi.json").json()
    assert described["x-fal-order-paths"][0] == "/"
    assert described["components"]["schemas"]["Input"]["x-fal-order-properties"] == ["name", "parts"]
    assert described["paths"]["/socket"]["x-fal-protocol"]["type"] == "websocket"

    missing = app.post("/nowhere")
    assert (missing.status_code, missing.json()) == (404, {"detail": "Path /nowhere not found"})
    assert missing.headers["x-fal-billable-units"] == "0"
    assert app.get("/").status_code == 405

    invalid = app.post("/", json={"name": 3})
    assert invalid.status_code == 422
    assert invalid.json()["detail"][0]["loc"] == ["body", "name"]
    binary = app.post("/", content=b"\xff\xfe\x00", headers={"Content-Type": "application/octet-stream"})
    assert (binary.status_code, binary.json()["detail"][0]["input"]) == (422, "<binary 3 bytes>")

    assert (app.post("/refuse").status_code, app.post("/refuse").json()) == (418, {"detail": "not today"})
    field = app.post("/field")
    assert field.json() == {"detail": [{"loc": ["body", "name"], "msg": "too short", "type": "value_error"}]}
    assert field.headers["x-fal-billable-units"] == "2"
    assert app.post("/gpu").status_code == 503


def test_request_context(app):
    headers = {"x-fal-request-id": "r-1", "x-fal-endpoint": "/who"}
    assert app.post("/who", headers=headers).json() == {"id": "r-1", "endpoint": "/who"}
    assert app.post("/who").json() == {"id": None, "endpoint": None}


def test_bug_is_a_500_with_one_traceback_that_begins_in_the_app(start):
    app = start(APP)
    answer = app.post("/bug")
    assert (answer.status_code, answer.json()) == (500, {"detail": "Internal Server Error"})
    app.wait_for("ValueError: a bug in the app")
    app.terminate()
    app.wait()
    assert sum("ValueError: a bug in the app" in line for line in app.err) == 1
    frames = [line for line in app.err if line.startswith("  File ")]
    assert frames[0].endswith("in bug")


def test_streams(app):
    with httpx.stream("POST", app.url + "/numbers") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert [line for line in answer.iter_lines() if line] == ["data: 0", "data: 1", "data: 2"]
    with pytest.raises(httpx.RemoteProtocolError):
        app.post("/cut")


def test_websocket(app):
    from websockets.sync.client import connect

    with connect(app.url.replace("http", "ws") + "/socket") as socket:
        socket.send("echo")
        assert socket.recv() == "echo"


def test_metrics(app):
    app.post("/", json={})
    text = httpx.get(f"http://127.0.0.1:{app.metrics_port}/metrics").text
    assert 'fal_app_info{version="7"} 1' in text
    assert re.search(r'http_requests_total{app_name="fal",method="POST",path="/",status_code="200"} [0-9]+\n', text)
    assert httpx.get(f"http://127.0.0.1:{app.metrics_port}/").status_code == 404


def test_sigterm_calls_handle_exit_at_once_finishes_requests_then_tears_down(start):
    app = start(APP)
    answers = []
    caller = threading.Thread(target=lambda: answers.append(app.post("/slow", timeout=30)))
    caller.start()
    app.wait_for("slow started")
    app.terminate()  # handle_exit is what lets the request finish
    caller.join(timeout=30)
    assert answers[0].json() == "finished"
    assert app.wait() == 0
    steps = [line for line in app.out if line in ("setup", "handle_exit", "teardown", "slow started")]
    assert steps == ["setup", "slow started", "handle_exit", "teardown"]


ASYNC_LIFE = """
import fal


class Sample(fal.App):
    async def setup(self):
        print("setup")

    async def handle_exit(self):
        print("handle_exit")

    async def teardown(self):
        print("teardown")

    @fal.endpoint("/")
    def run(self) -> str:
        return "ok"
"""


def test_the_life_of_an_app_may_be_async(start):
    app = start(ASYNC_LIFE)
    assert app.post("/").json() == "ok"
    app.terminate()
    assert app.wait() == 0
    assert [line for line in app.out if line in ("setup", "handle_exit", "teardown")] == [
        "setup",
        "handle_exit",
        "teardown",
    ]


STOPPED_EARLY = """
import threading

import fal


class Sample(fal.App):
    def setup(self):
        self.signaled = threading.Event()
        print("setup", flush=True)
        self.signaled.wait(30)
        print("set up")

    def handle_exit(self):
        print("handle_exit")
        self.signaled.set()

    def teardown(self):
        print("teardown")

    @fal.endpoint("/")
    def run(self) -> str:
        return "ok"
"""


def test_a_stop_during_setup_is_told_at_once_and_the_port_never_opens(start):
    app = start(STOPPED_EARLY)
    app.wait_for("^setup")
    app.terminate()
    assert app.wait() == 0
    assert app.out[:4] == ["setup", "handle_exit", "set up", "teardown"]
    assert not any("running on" in line for line in app.err)


def test_a_second_interrupt_ends_a_setup_that_does_not_listen(start):
    app = start(STOPPED_EARLY.replace("self.signaled.set()", "pass"))
    app.wait_for("^setup")
    app.process.send_signal(signal.SIGINT)
    app.wait_for("^handle_exit")
    app.process.send_signal(signal.SIGINT)
    assert app.wait() != 0
    assert "set up" not in app.out


def test_failing_setup_ends_the_runner(start):
    app = start(ASYNC_LIFE.replace('print("setup")', 'raise OSError("no such model")'))
    assert app.wait() != 0
    assert "OSError: no such model" in app.err
    assert not any("running on" in line for line in app.err)


def test_failing_handle_exit_does_not_keep_it_from_stopping(start):
    app = start(ASYNC_LIFE.replace('print("handle_exit")', 'raise OSError("oh")'))
    assert app.post("/").json() == "ok"
    app.terminate()
    assert app.wait() == 0
    assert "OSError: oh" in app.err
    assert "teardown" in app.out


FUNCTIONS = """
from pydantic import BaseModel

import fal


class Input(BaseModel):
    n: int


def helper(n):
    return n + 1


@fal.function(serve=True)
def served(request: Input) -> dict:
    return {"n": helper(request.n)}


@fal.function()
def plain(n=4):
    return {"n": helper(n)}


@fal.function()
async def asynchronous():
    return "async"
"""


def test_served_function(start):
    app = start(FUNCTIONS, "served")
    assert app.post("/", json={"n": 1}).json() == {"n": 2}
    assert app.get("/health").status_code == 200
    app.terminate()
    assert app.wait() == 0


@pytest.mark.parametrize(("name", "result"), [("plain", {"n": 5}), ("asynchronous", "async")])
def test_function_runs_once(start, name, result):
    run = start(FUNCTIONS, name)
    assert run.wait() == 0
    assert run.out == [f"RESULT {result!r}"]


def test_root_path_is_the_platforms(start):
    app = start(ASYNC_LIFE, environment={"FAL_APP_ROOT_PATH": "/owner/sample"})
    assert app.get("/openapi.json").json()["servers"] == [{"url": "/owner/sample"}]


def test_modules_of_fal_that_no_runner_has_say_so(start):
    app = start(ASYNC_LIFE.replace('return "ok"', "import fal.api"))
    assert app.post("/").status_code == 500
    app.wait_for("fal.api is not there inside of a runner")


def test_what_was_deployed_and_what_runs_describe_themselves_alike(app, tmp_path):
    from fal.deploy.preparation import prepare

    (tmp_path / "sample.py").write_text(APP)
    metadata = prepare(str(tmp_path / "sample.py")).metadata
    assert app.get("/openapi.json").json() == json.loads(json.dumps(metadata["openapi"]))
