"""Programs that run their own apps and functions in runners. They call apps by their names, too."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.controller import Controller, running

PROGRAM = Path(__file__).parent / "samples" / "program.py"
CALLER = Path(__file__).parent / "samples" / "caller.py"
Said = dict[str, list[list[object]]]


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Generator[Controller]:
    with running(tmp_path_factory.mktemp("clients")) as controller:
        yield controller


@pytest.fixture(scope="module")
def ran(controller: Controller) -> subprocess.CompletedProcess[str]:
    """Run the program; its app is deployed beside it."""
    controller.fal("deploy", f"{PROGRAM}::Greeter", "--app-name", "greeter")
    environment = controller.environment
    return subprocess.run(
        [sys.executable, PROGRAM], env=environment, capture_output=True, text=True, check=False, timeout=240
    )


@pytest.fixture(scope="module")
def said(ran: subprocess.CompletedProcess[str]) -> Said:
    """Return the program's results, by subject."""
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found: Said = json.loads(ran.stdout.splitlines()[-1])
    return found


def test_an_app_is_served_while_a_program_calls_it(said: Said) -> None:
    answers, more, refused, ended = said["connected"]
    assert answers == ["Output", "hello, me", {"text": "ME"}, {"version": "unknown"}]
    assert more == ["hello, you", 1]
    assert refused == [422, True, True]
    assert ended[0] == "ended"


def test_an_app_that_fails_to_start_says_so(said: Said) -> None:
    ((status, text),) = said["broken"]
    assert status in (500, 503)
    assert "no weights" in str(text) or "start" in str(text)


def test_a_function_that_is_called_runs_in_a_runner(said: Said, ran: subprocess.CompletedProcess[str]) -> None:
    assert said["functions"][0] == [9, 10, [12, 24]]
    assert "doubles 4" in ran.stderr
    assert ran.stdout.splitlines()[:-1] == ["doubles 5"]  # of the app that ran here
    assert said["functions"][3:] == [["ValueError", ["below 0", -1], True], ["Refused", ["above 100"], True]]


def test_functions_run_without_being_waited_for(said: Said) -> None:
    _, spawned, failed, *_ = said["functions"]
    assert spawned == [42, True]
    assert failed[0] == "UserFunctionError"
    assert "below 0" in str(failed[1])
    assert failed[2] == "ValueError('below 0', -1)"


def test_apps_are_called_by_their_names(said: Said) -> None:
    named, queued, handle, streamed, refused, late, worked = said["apps"]
    assert named == ["hello, by name", "local/greeter"]
    assert queued == [{"text": "hello, queue"}, {"text": "PATH"}]
    assert handle == [{"text": "ID"}, "Completed", "local/greeter"]
    assert streamed == [["data: 0\u2028", "data: 1\u2028", "data: 2\u2028"]]
    assert refused == [422, True]
    assert late == [400]
    assert worked == [{"both": ["hello, me", "HELLO, ME"]}]


def test_an_app_calls_another_by_its_name(controller: Controller, ran: subprocess.CompletedProcess[str]) -> None:
    assert ran.returncode == 0
    controller.fal("deploy", f"{CALLER}::Caller", "--app-name", "caller")
    controller.fal("deploy", f"{CALLER}::Bare", "--app-name", "bare")
    assert json.loads(controller.fal("api", "local/caller", "name=me").stdout) == {
        "run": {"text": "hello, me"},
        "submit": {"text": "ME"},
        "stream": ["data: 0\u2028", "data: 1\u2028", "data: 2\u2028"],
        "ws": '{"text":"hello, me"}',
        "workflow": {"text": "ME"},
    }
    # If the app's requirements lack httpx, the error says what to add.
    said = json.loads(controller.fal("api", "local/bare", "name=me").stdout)
    assert said == {"error": "calling apps needs httpx: add it to the app's requirements"}


def test_a_directory_is_uploaded_when_it_has_changed(said: Said) -> None:
    first, unchanged, changed = said["directories"]
    assert first == ["/data/synced/weights", [".fal_hash", ".gitignore", "deep"], "a"]
    assert unchanged == ["/data/synced/weights", [".fal_hash", "deep"], "a"]
    assert changed == ["/data/synced/weights", [".fal_hash", ".gitignore", "deep"], "b"]


def test_a_function_that_its_file_calls_while_it_is_imported_is_refused(controller: Controller, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import fal\n\n@fal.function()\ndef one() -> int:\n    return 1\n\nprint(one())\n")
    done = subprocess.run(
        [sys.executable, script], env=controller.environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert 'put the call under if __name__ == "__main__":' in done.stderr
