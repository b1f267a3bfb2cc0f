"""`fal api` against a real app: queued, direct, streaming and realtime calls. One call is cancelled."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.controller import BIN, ROOT, Controller
from tests.support.waiting import until

APP = ROOT / "tests" / "support" / "api_app.py"


@pytest.fixture(scope="module")
def app(controller: Controller) -> str:
    controller.fal("deploy", str(APP), "--app-name", "api", "--auth", "private")
    return "local/api"


def test_a_queued_call_prints_its_result_alone_and_the_rest_beside_it(controller: Controller, app: str) -> None:
    done = controller.fal("api", app, "text=one", "n:=2", "deep[list][]=x")
    assert json.loads(done.stdout) == {"got": {"text": "one", "n": 2, "deep": {"list": ["x"]}}}
    assert done.stderr.startswith("Request ")


def test_an_app_of_ones_own_needs_no_owner(controller: Controller, app: str) -> None:
    assert json.loads(controller.fal("api", "api").stdout) == {"got": {}}


def test_a_direct_call(controller: Controller, app: str) -> None:
    done = controller.fal("api", f"{app}/square", "number:=4", "--direct")
    assert (json.loads(done.stdout), done.stderr) == ({"square": 16}, "")


def test_a_stream_is_printed_event_by_event(controller: Controller, app: str) -> None:
    done = controller.fal("api", f"{app}/stream", "number:=3")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"number": n} for n in range(3)]


def test_curl_gets_the_address_and_the_key(controller: Controller, app: str, tmp_path: Path) -> None:
    body = ["-s", "-H", "Content-Type: application/json", "-d", '{"number": 4}']
    for name in ("api/square", f"{app}/square"):
        assert json.loads(controller.fal("curl", name, *body).stdout) == {"square": 16}
    assert controller.fal("curl", "api/nosuch", "--fail", "-s", check=False).returncode == 22
    program = tmp_path / "curl"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    environment = {**controller.environment, "PATH": f"{tmp_path}:{controller.environment['PATH']}"}
    command = [str(BIN / "fal"), "curl", f"{app}/square?a=b", "-i"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("/local/api/square?a=b\n")
    assert "Key" not in done.stdout


def test_bytes_stay_bytes(controller: Controller, app: str) -> None:
    done = subprocess.run(
        [str(BIN / "fal"), "api", f"{app}/picture"], env=controller.environment, capture_output=True, check=True
    )
    assert done.stdout == b"\x89PNG\xff\x00"


def test_messages_in_and_out(controller: Controller, app: str) -> None:
    done = controller.fal("api", app, "--realtime", stdin=b'{"number": 2}\n\n{"number": 3}\n')
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"square": 4}, {"square": 9}]


@pytest.mark.parametrize("how", [(), ("--direct",)])
def test_what_the_app_refuses_is_said_in_its_words(controller: Controller, app: str, how: tuple[str, ...]) -> None:
    done = controller.fal("api", f"{app}/square", "number=many", *how, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{app}/square answered 422: number: " in done.stderr


@pytest.mark.parametrize("line", [b"no json\n", b'{"number": "many"}\n'])
def test_a_message_that_cannot_be_used_ends_the_session_with_an_error(
    controller: Controller, app: str, line: bytes
) -> None:
    done = controller.fal("api", app, "--realtime", stdin=line, check=False)
    assert done.returncode == (2 if b"no" in line else 1), done.stderr
    assert "Error: " in done.stderr


def test_an_app_that_is_not_there_and_a_key_that_is_wrong(controller: Controller, app: str) -> None:
    done = controller.fal("api", "local/none", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "local/none answered 404" in done.stderr
    wrong = subprocess.run(
        [str(BIN / "fal"), "api", app],
        env=controller.environment | {"FAL_KEY": "wrong:key"},
        capture_output=True,
        check=False,
    )
    assert wrong.returncode == 1
    assert b"401" in wrong.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cancels_the_queued_call_and_the_app_sees_it(
    controller: Controller, app: str, tmp_path: Path, number: signal.Signals
) -> None:
    started, gone = tmp_path / "started", tmp_path / "gone"
    with subprocess.Popen(
        [str(BIN / "fal"), "api", f"{app}/wait", f"started={started}", f"gone={gone}"],
        env=controller.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        until(started.exists, "the app works on the call")
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (128 + number, b"")
    assert b"Asked to cancel request " in err
    until(gone.exists, "the app sees that its call is cancelled")


def test_a_direct_call_that_is_given_up_is_seen_by_the_app(controller: Controller, app: str, tmp_path: Path) -> None:
    started, gone = tmp_path / "started", tmp_path / "gone"
    with subprocess.Popen(
        [str(BIN / "fal"), "api", f"{app}/wait", f"started={started}", f"gone={gone}", "--direct"],
        env=controller.environment,
        stderr=subprocess.DEVNULL,
    ) as process:
        until(started.exists, "the app works on the call")
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    until(gone.exists, "the app sees that its caller is gone")


def test_a_failed_attempt_is_told_while_the_call_waits(controller: Controller, app: str) -> None:
    with subprocess.Popen(
        [str(BIN / "fal"), "api", f"{app}/exit"], env=controller.environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        seen = ""
        for line in process.stderr:
            seen += line
            if line.startswith("Attempt 1 of 10 failed: the runner ended with exit code "):
                break
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
    assert "Attempt 1 of 10 failed: the runner ended with exit code " in seen
    assert "Asked to cancel request " in rest


def test_a_path_of_ones_own_app_without_its_owner_is_guessed(controller: Controller, app: str) -> None:
    owner, _, name = app.partition("/")
    done = controller.fal("api", f"{name}/wait", check=False)
    assert done.returncode == 1
    assert f"did you mean {owner}/{name}/wait?" in done.stderr
