"""`fal deploy` and `fal run`: output and exit codes. The tests of the SDK cover the requests."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading

import pytest

from fal_cli.main import main
from fal_grpc.v1 import app_pb2, log_pb2, revision_pb2, run_pb2

APP = """
import fal

class Hello(fal.App, name="hello"):
    requirements = []

    @fal.endpoint("/")
    def greet(self) -> str:
        return "hello"

@fal.function()
def six() -> int:
    return 6

@fal.function()
def bad() -> None:
    raise ValueError("on purpose")
"""


@pytest.fixture
def app_file(tmp_path):
    path = tmp_path / "hello_app.py"
    path.write_text(APP)
    return f"{path}::Hello"


@pytest.fixture
def deployed(controller):
    built = revision_pb2.BuildEnvironmentResult(
        logs=[log_pb2.Log(message="Installing \x1b[2J things", source=log_pb2.BUILDER, level=log_pb2.INFO)]
    )
    built.status.state = run_pb2.HostedRunStatus.SUCCESS
    registered = revision_pb2.RegisterApplicationResult(
        logs=[
            log_pb2.Log(message="said by the app", source=log_pb2.USER, level=log_pb2.INFO),
            log_pb2.Log(message="too fine", source=log_pb2.BRIDGE, level=log_pb2.DEBUG),
        ]
    )
    registered.result.application_id = "rev-1"
    registered.service_urls.run = "http://127.0.0.1:1/local/hello"
    controller.answers["BuildEnvironment"] = lambda _request, _context: iter([built])
    controller.answers["RegisterApplication"] = lambda _request, _context: iter([registered])
    controller.answers["ListAliases"] = app_pb2.ListAliasesResult()
    return controller


def test_the_result_is_alone_on_stdout_as_json(deployed, app_file, capsys):
    assert main(["deploy", app_file, "--json", "--message", "first", "--annotation", "GIT_SHA=1"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"revision": "rev-1", "app_name": "hello", "status": "deployed"}
    assert captured.err.splitlines() == ["Installing \x1b[2J things", "said by the app"]
    assert deployed.request("RegisterApplication").application_name == "hello"


def test_addresses_are_shown_as_asked_for(deployed, app_file, capsys, monkeypatch):
    assert main(["deploy", app_file]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Deployed hello, revision rev-1\n")
    assert "  POST        http://127.0.0.1:1/local/hello/\n" in shown
    assert "  auth        private: its owner's keys may call it\n" in shown
    assert "  to call it  fal curl local/hello/ -H" in shown
    assert main(["deploy", app_file, "--auth", "public"]) == 0
    shown = capsys.readouterr().out
    assert "  auth        public: anyone may call it, without a key\n" in shown
    assert "  to call it  curl http://127.0.0.1:1/local/hello/ -H" in shown
    assert shown.count("127.0.0.1:1/local/hello/\n") == 1, "each address once"
    monkeypatch.setenv("FAL_URL_OUTPUT", "none")
    assert main(["deploy", app_file]) == 0
    assert capsys.readouterr().out == "Deployed hello, revision rev-1\n"


def test_a_detached_deploy_of_a_known_app_is_rolling_out(deployed, app_file, capsys):
    assert main(["deploy", app_file, "--detach", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "deployed"
    deployed.answers["ListAliases"] = app_pb2.ListAliasesResult(aliases=[app_pb2.AliasInfo(alias="hello")])
    assert main(["deploy", app_file, "--detach", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "rolling_out"


@pytest.mark.parametrize(
    ("registered", "message"),
    [
        (None, "Interrupted: it is not known whether there is a new revision. `fal apps list-rev` shows it."),
        (
            revision_pb2.RegisteredRevision(application_id="rev-1", application_name="hello"),
            "the deploy of hello to revision rev-1 goes on.\n`fal apps delete hello` removes the application.",
        ),
        (
            revision_pb2.RegisteredRevision(application_id="rev-1", application_name="hello", previous_id="rev-0"),
            "the deploy of hello to revision rev-1 goes on.\n`fal apps set-rev hello rev-0` goes back.",
        ),
    ],
)
def test_ctrl_c_says_what_becomes_of_the_deploy(deployed, app_file, registered, message):
    def register(_request, context):
        ended = threading.Event()
        context.add_callback(ended.set)
        if registered is not None:
            yield revision_pb2.RegisterApplicationResult(registered=registered)
        yield revision_pb2.RegisterApplicationResult(
            logs=[log_pb2.Log(message="waiting", source=log_pb2.USER, level=log_pb2.INFO)]
        )
        ended.wait(60)

    deployed.answers["RegisterApplication"] = register
    process = subprocess.Popen(
        [sys.executable, "-m", "fal_cli", "deploy", app_file], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    seen = list(iter(process.stderr.readline, "waiting\n"))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert message in err, (seen, err)
    assert "Traceback" not in err


def test_check_without_a_terminal_wants_yes(deployed, app_file, capsys):
    done = subprocess.run(
        [sys.executable, "-m", "fal_cli", "deploy", app_file, "--check"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "add --yes" in done.stderr


def test_check_shows_what_the_deploy_would_change(deployed, app_file, capsys):
    assert main(["deploy", app_file, "--check", "--yes"]) == 0
    shown = capsys.readouterr().err
    assert "About to deploy:" in shown
    assert re.search(r"^  name +hello$", shown, re.MULTILINE)
    assert re.search(r"^  revision +the first one of a new application$", shown, re.MULTILINE)
    assert re.search(r"^  auth +private$", shown, re.MULTILINE)
    deployed.answers["ListAliases"] = app_pb2.ListAliasesResult(
        aliases=[app_pb2.AliasInfo(alias="hello", revision="rev-0", auth_mode=app_pb2.PUBLIC)]
    )
    assert main(["deploy", app_file, "--check", "--yes", "--auth", "shared"]) == 0
    shown = capsys.readouterr().err
    assert re.search(r"^  revision +a new one instead of rev-0$", shown, re.MULTILINE)
    assert re.search(r"^  auth +shared instead of public$", shown, re.MULTILINE)


def test_a_file_that_is_not_there(controller, capsys):
    assert main(["deploy", "nowhere.py"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "there is no file" in captured.err


def test_a_function_runs_here(app_file, capsys):
    assert main(["run", app_file.replace("::Hello", "::six"), "--local"]) == 0
    assert capsys.readouterr().out == "6\n"


def test_an_error_of_a_local_function_is_shown_from_its_file_on(app_file, capsys):
    assert main(["run", app_file.replace("::Hello", "::bad"), "--local"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert 'raise ValueError("on purpose")' in captured.err
    assert "run_local" not in captured.err
    assert captured.err.endswith("Error: bad raised ValueError: on purpose\n")


def test_a_run_here_says_that_it_installs_nothing(tmp_path, capsys):
    (tmp_path / "fn.py").write_text(
        'import fal\n\n\n@fal.function(requirements=["no-such-package"])\n'
        "def needs():\n    import no_such_package\n    return no_such_package\n"
    )
    assert main(["run", f"{tmp_path}/fn.py::needs", "--local"]) == 1
    assert "no_such_package': --local runs in this Python and installs nothing" in " ".join(
        capsys.readouterr().err.split()
    )


def test_a_run_shows_the_address_of_a_served_app_only(deployed, app_file, capsys):
    running = run_pb2.HostedRunResult()
    running.service_urls.run = "http://127.0.0.1:1/local/hello"
    ended = run_pb2.HostedRunResult(
        status=run_pb2.HostedRunStatus(state=run_pb2.HostedRunStatus.SUCCESS),
        return_value=run_pb2.HostedRunResult().return_value.__class__(method="json", definition=b"6"),
    )
    deployed.answers["Run"] = lambda _request, _context: iter([running, ended])
    assert main(["run", app_file.replace("::Hello", "::six")]) == 0
    captured = capsys.readouterr()
    assert (captured.out, "Serving at" in captured.err) == ("6\n", False)
    assert main(["run", app_file]) == 0
    assert "Serving at http://127.0.0.1:1/local/hello" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["deploy", "run"])
def test_a_missing_extra_is_named(command, app_file):
    script = (
        "import sys, importlib.util as u; found = u.find_spec;"
        "u.find_spec = lambda name, *rest: None if name == 'cloudpickle' else found(name, *rest);"
        "from fal_cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, command, app_file, "--host", "127.0.0.1:1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'fal-grpc[app]'" in done.stderr


@pytest.fixture
def planned(controller, app_file):
    answer = revision_pb2.PlanApplicationResponse(
        application_name="hello", current_id="rev-0", env_id="e" * 64, steps=["start 1 runner of the new revision (S)"]
    )
    controller.answers["PlanApplication"] = lambda _request, _context: answer
    return answer


def test_a_plan_says_what_would_change_and_deploys_nothing(controller, planned, app_file, capsys):
    planned.changes.add(name="keep_alive", current="60", planned="90")
    planned.changes.add(name="requirements", current="a, b", planned="a, c")
    planned.problems.append("no machine can run it")
    assert main(["deploy", app_file, "--plan"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "hello is on revision rev-0. This would change:",
        "  keep_alive    60 -> 90",
        "  requirements  -b +c",
        "Its environment (eeeeeeeeeeee) would be built.",
        "The controller would then:",
        "  1. start 1 runner of the new revision (S)",
        "Problem: no machine can run it",
    ]
    assert main(["deploy", app_file, "--plan", "--detailed-exitcode", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["changes"][0] == {"name": "keep_alive", "current": "60", "planned": "90"}
    assert [name for name, _ in controller.asked] == ["PlanApplication"] * 2


def test_a_plan_without_changes_exits_with_0(planned, app_file, capsys):
    planned.environment_built = True
    assert main(["deploy", app_file, "--plan", "--detailed-exitcode"]) == 0
    assert "No setting and no code would change." in capsys.readouterr().out
    assert main(["deploy", app_file, "--detailed-exitcode"]) == 2
