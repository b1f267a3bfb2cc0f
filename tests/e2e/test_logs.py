"""Every line once and in order, with real processes. Controllers, followers and runners end meanwhile."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.controller import BIN, Controller, running, start
from tests.support.waiting import until

SECRET = "planted-s3cret+value/with=signs and spaces"
APP = """
import ctypes
import os
import signal
import subprocess
import sys
import threading

import fal
from pydantic import BaseModel


class Count(BaseModel):
    to: int = 3
    pause: float = 0.0


class Talker(fal.App, keep_alive=600, max_concurrency=2, max_multiplexing=8):
    machine_type = "XS"
    app_auth = "public"

    def setup(self):
        import base64, json, urllib.parse

        secret = os.environ.get("PLANTED", "")
        print("plain", secret)
        print("basic", base64.b64encode(f"user:{secret}".encode()).decode())
        print("url", urllib.parse.quote(secret, safe=""), urllib.parse.quote_plus(secret))
        print("json", json.dumps({"secret": secret}))
        half = len(secret) // 2
        sys.stdout.write("halves " + secret[:half])
        sys.stdout.flush()
        threading.Event().wait(0.2)
        sys.stdout.write(secret[half:] + "\\n")
        os.write(2, ("raw " + secret + "\\n").encode())

    @fal.endpoint("/count")
    def count(self, asked: Count) -> int:
        for number in range(asked.to):
            print("request line", number)
        return os.getpid()

    @fal.endpoint("/background")
    def background(self, asked: Count) -> int:
        def talk():
            for number in range(asked.to):
                print(f"number {number}", flush=True)
                threading.Event().wait(asked.pause)

        threading.Thread(target=talk, daemon=True).start()
        return os.getpid()

    @fal.endpoint("/die")
    def die(self, asked: Count) -> int:
        print("\\n".join(f"last {number}" for number in range(asked.to)))
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    @fal.endpoint("/child")
    def child(self) -> int:
        return subprocess.run([sys.executable, "-c", "def f():\\n    raise KeyError('weights')\\nf()"]).returncode

    @fal.endpoint("/crash")
    def crash(self) -> int:
        return ctypes.string_at(0)
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Generator[Controller]:
    """Run a controller with an app and a secret. Only this file uses it, because its tests kill it."""
    root: Path = tmp_path_factory.mktemp("logs")
    with running(root / "state") as controller:
        controller.fal("secrets", "set", "PLANTED", stdin=SECRET.encode())
        (root / "talker.py").write_text(APP)
        controller.fal("deploy", str(root / "talker.py"), "--app-name", "talker", "--auth", "public")
        yield controller


def call(controller: Controller, path: str, **body: object) -> int:
    answer = controller.call(f"/local/talker/{path}", body)
    assert answer.status == 200, answer.body
    found = answer.json()
    assert isinstance(found, int)
    return found


def lines(controller: Controller, *flags: str) -> list[dict[str, object]]:
    out = controller.fal("apps", "logs", "talker", "--output", "jsonl", *flags).stdout
    return [json.loads(line) for line in out.splitlines()]


def messages(controller: Controller, *flags: str) -> list[str]:
    return [str(line["message"]) for line in lines(controller, *flags)]


class Following:
    """A `fal ... logs --follow` process."""

    def __init__(self, controller: Controller, place: Path, *arguments: str) -> None:
        self.out, self.err = place / "out", place / "err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [BIN / "fal", *arguments, "--follow", "--output", "jsonl"],
                env=controller.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def found(self) -> list[dict[str, object]]:
        whole, _, _ = self.out.read_bytes().rpartition(b"\n")
        return [json.loads(line) for line in whole.splitlines()]

    def wait_for(self, message: str) -> None:
        until(lambda: any(message == line["message"] for line in self.found()), f"line {message!r}")


@contextmanager
def following(controller: Controller, place: Path, *arguments: str) -> Generator[Following]:
    place.mkdir()
    follower = Following(controller, place, *arguments)
    try:
        yield follower
    finally:
        if follower.process.poll() is None:
            follower.process.kill()
        follower.process.wait()


def test_a_traceback_of_a_child_process_is_one_error(platform: Controller) -> None:
    assert call(platform, "child") == 1
    found = until(lambda: [line for line in lines(platform) if "KeyError: 'weights'" in str(line["message"])], "it")
    (line,) = found
    assert line["level"] == "ERROR"
    assert str(line["message"]).startswith("Traceback (most recent call last):\n  File ")


def test_a_crash_beneath_python_says_where_it_was(platform: Controller) -> None:
    answer = platform.call("/local/talker/crash", {})
    assert answer.status == 503
    assert b"SIGSEGV" in answer.body
    assert b"Segmentation fault, in crash (talker.py:" in answer.body
    (report,) = [line for line in lines(platform) if str(line["message"]).startswith("Fatal Python error: ")]
    assert report["level"] == "ERROR"
    assert "in string_at\n" in str(report["message"])


def test_what_a_request_prints_is_found_by_its_id(platform: Controller) -> None:
    call(platform, "count", to=3)
    tagged = [line for line in lines(platform, "--source", "stdout") if line["message"] == "request line 2"]
    request_id = str(tagged[-1]["request_id"])
    assert request_id
    assert [message for message in messages(platform, "--request-id", request_id) if "request line" in message] == [
        "request line 0",
        "request line 1",
        "request line 2",
    ]
    runner_id = str(tagged[-1]["runner_id"])
    of_runner = platform.fal("runners", "logs", runner_id, "--request-id", request_id, "--source", "stdout", "--json")
    assert [line["sequence"] for line in json.loads(of_runner.stdout)["logs"]] == [
        line["sequence"] for line in lines(platform, "--request-id", request_id, "--source", "stdout")
    ]
    assert {line["source"] for line in lines(platform, "--source", "system")} == {"system"}


def test_what_the_build_said_is_among_the_lines_of_the_app(platform: Controller) -> None:
    found = lines(platform, "--source", "build")
    assert found[-1]["message"] == "The environment is built"
    assert [line["sequence"] for line in found] == list(range(1, len(found) + 1))
    of_build = platform.fal("runners", "logs", str(found[0]["runner_id"]), "-n", "1").stdout
    assert "The environment is built" in of_build


def test_no_secret_is_anywhere_in_the_state(platform: Controller) -> None:
    call(platform, "count", to=1)
    found = messages(platform)
    for name in ("plain", "url", "halves", "raw"):
        assert any(message.startswith(f"{name} ******") for message in found), name
    assert 'json {"secret": "******"}' in found
    forms = {SECRET, quote(SECRET, safe=""), quote(SECRET), json.dumps(SECRET)[1:-1]}
    for shift in range(3):
        encoded = base64.b64encode(b"x" * shift + SECRET.encode()).decode()
        forms.add(encoded[4 : len(encoded) - 4])
    for path in platform.state_dir.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            assert not [form for form in forms if form.encode() in data], path


def test_a_burst_before_the_end_is_whole_and_says_what_the_end_was(platform: Controller, tmp_path: Path) -> None:
    call(platform, "count", to=1)
    with following(platform, tmp_path / "app", "apps", "logs", "talker") as app:
        platform.call("/local/talker/die", {"to": 500})
        app.wait_for("last 499")
        first = next(line["runner_id"] for line in app.found() if line["message"] == "last 499")
        ended = platform.fal("runners", "logs", str(first), "--follow")
        assert f"Runner {first} has ended with exit code 137" in ended.stderr
        stored = json.loads(platform.fal("runners", "logs", str(first), "--json").stdout)["logs"]
        assert [line["sequence"] for line in stored] == list(range(1, len(stored) + 1))
        last = [line["message"] for line in stored if str(line["message"]).startswith("last ")]
        assert last == [f"last {number}" for number in range(500)]
        assert stored[-1]["source"] == "system"
        assert "killed by signal 9 (SIGKILL)" in stored[-1]["message"]
        # A runner that starts while the app is followed is followed too.
        call(platform, "count", to=2)
        until(lambda: {line["runner_id"] for line in app.found()} > {first}, "lines of the next runner")
        seen = [(line["runner_id"], line["sequence"]) for line in app.found()]
        assert len(seen) == len(set(seen))


def test_followers_go_on_where_they_were_when_the_controller_is_killed(platform: Controller, tmp_path: Path) -> None:
    call(platform, "background", to=1500, pause=0.004)
    runner_id = str(next(line for line in lines(platform) if line["message"] == "number 0")["runner_id"])
    with (
        following(platform, tmp_path / "runner", "runners", "logs", runner_id) as runner,
        following(platform, tmp_path / "app", "apps", "logs", "talker", "-n", "20") as app,
        following(platform, tmp_path / "lost", "apps", "logs", "talker") as lost,
    ):
        for follower in (runner, app, lost):
            until(follower.found, "the first lines")
        lost.process.send_signal(signal.SIGKILL)
        for _ in range(2):
            platform.process.send_signal(signal.SIGKILL)
            platform.process.wait()
            again = start(platform.state_dir, "--port", str(platform.port), "--grpc-port", str(platform.grpc_port))
            platform.process = again.process
            assert again.port == platform.port
        for follower in (runner, app):
            follower.wait_for("number 1499")
            assert "continues where it was" in follower.err.read_text()
        platform.fal("runners", "kill", runner_id)
        assert runner.process.wait(60) == 0
        assert f"Runner {runner_id} has ended" in runner.err.read_text()
        stored = json.loads(platform.fal("runners", "logs", runner_id, "--json").stdout)["logs"]
        assert [line["sequence"] for line in stored] == list(range(1, len(stored) + 1))
        assert [line["message"] for line in stored if str(line["message"]).startswith("number ")] == [
            f"number {number}" for number in range(1500)
        ]
        until(lambda: app.found()[-1]["sequence"] == len(stored), "the last line of the app")
        for follower in (runner, app):
            sequences = [line["sequence"] for line in follower.found() if line["runner_id"] == runner_id]
            assert sequences == list(range(int(str(sequences[0])), len(stored) + 1))


def test_a_name_that_no_app_has(platform: Controller) -> None:
    done = platform.fal("apps", "logs", "nobody", check=False)
    assert done.returncode == 1
    assert "fal apps list" in done.stderr
