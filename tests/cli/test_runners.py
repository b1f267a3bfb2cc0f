"""`fal runners list|stop|kill` and `fal apps runners`."""

from __future__ import annotations

import json
import re
import sys
import time
from datetime import UTC, datetime, timedelta

import grpc
import pytest
import yaml

from fal_cli.main import main
from fal_grpc.v1.runner_pb2 import (
    GetRunnerResponse,
    KillRunnerResponse,
    ListAliasRunnersResponse,
    ListRunnersResponse,
    RunnerInfo,
    StopRunnerResponse,
)
from tests.cli.test_confirm import Terminal


def runner(runner_id="r-1", state=RunnerInfo.IDLE, **fields):
    given = {"alias": "hello", "machine_type": "S", "revision": "rev-1", "uptime": 3725.9}
    return RunnerInfo(runner_id=runner_id, state=state, **{**given, **fields})


@pytest.fixture
def three(controller):
    busy = runner("r-busy", RunnerInfo.RUNNING, in_flight_requests=1, replacement=RunnerInfo.WILL_REPLACE)
    busy.external_metadata.update(
        {"leases": [{"request_id": "q-1", "caller_user_id": "me", "leased_at_epoch": time.time() - 61}, {"odd": 1}]}
    )
    controller.answers["ListRunners"] = ListRunnersResponse(
        runners=[
            busy,
            runner("r-idle", expiration_countdown=57),
            runner("r-late", RunnerInfo.FAILURE_DELAY, uptime=0),
            runner("r-new", RunnerInfo.PENDING, uptime=0),
            runner("r-old", RunnerInfo.TERMINATED),
            runner("r-dead", RunnerInfo.DEAD),
        ]
    )
    return controller


def test_json_has_the_published_keys_and_is_alone(three, capsys):
    assert main(["runners", "list", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    document = json.loads(captured.out)
    assert list(document) == ["runners"]
    assert document["runners"][1] == {
        "alias": "hello",
        "machine_type": "S",
        "runner_id": "r-idle",
        "in_flight_requests": 0,
        "expiration_countdown": 57,
        "uptime_seconds": 3725,
        "revision": "rev-1",
        "state": "IDLE",
        "replacement": "NO_REPLACE",
    }
    assert document["runners"][0]["expiration_countdown"] is None
    assert document["runners"][2]["state"] == "CRASH_BACKOFF"
    assert three.request("ListRunners").list_pending


def test_the_other_forms_say_the_same(three, capsys):
    main(["runners", "list", "--output", "json"])
    expected = json.loads(capsys.readouterr().out)
    main(["runners", "list", "--output", "yaml"])
    assert yaml.safe_load(capsys.readouterr().out) == expected
    main(["runners", "list", "--output", "jsonl"])
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == expected["runners"]


def test_the_table_has_the_specified_columns(three, capsys):
    assert main(["runners", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["Runners: 3", "Runners Pending: 1", "Runners Setting Up: 0"]
    assert lines[3] == "Runners Ended: 2"
    assert lines[4].startswith("Runners delayed after failed starts: 1")
    lines = lines[1:]
    assert re.split(r" {2,}", lines[4]) == [
        *("Alias", "Machine Type", "Runner ID", "In Flight Requests", "Expires In", "Uptime", "Revision", "State")
    ]
    assert lines[5].split() == ["hello", "S", "r-busy", "1", "N/A", "1:02:05", "(3725s)", "rev-1", "RUNNING", "(*)"]
    assert lines[6].split() == ["hello", "S", "r-idle", "0", "57s", "1:02:05", "(3725s)", "rev-1", "IDLE"]
    assert lines[11] == "(*) another runner will replace it"
    assert lines[12:14] == ["Requests: 1", "Runner ID  Request ID  Caller ID  Time Running"]
    assert lines[14].split()[:4] == ["r-busy", "q-1", "me", "0:01:01"] or lines[14].split()[3] == "0:01:02"


@pytest.mark.parametrize(
    ("states", "ids"),
    [
        (["idle"], ["r-idle"]),
        (["failure_delay"], ["r-late"]),
        (["crash_backoff"], ["r-late"]),
        (["terminated"], ["r-old", "r-dead"]),
        (["running", "pending"], ["r-busy", "r-new"]),
        (["idle", "all"], ["r-busy", "r-idle", "r-late", "r-new", "r-old", "r-dead"]),
        (["docker_pull"], []),
        (["draining"], []),
        (["terminating"], []),
    ],
)
def test_states_filter(three, states, ids, capsys):
    assert main(["runners", "list", "--json", "--state", *states]) == 0
    assert [found["runner_id"] for found in json.loads(capsys.readouterr().out)["runners"]] == ids


def test_the_reason_of_waiting_or_ending_is_shown(controller, capsys):
    controller.answers["ListRunners"] = ListRunnersResponse(
        runners=[
            runner("r-new", RunnerInfo.PENDING, state_reason="no node has room"),
            runner("r-old", RunnerInfo.TERMINATED, state_reason="idle for keep_alive 10 s"),
        ]
    )
    assert main(["runners", "list"]) == 0
    said = capsys.readouterr().out
    assert "r-new is PENDING: no node has room" in said
    assert "r-old is TERMINATED: idle for keep_alive 10 s" in said
    assert main(["runners", "list", "--json"]) == 0
    reasons = [found["reason"] for found in json.loads(capsys.readouterr().out)["runners"]]
    assert reasons == ["no node has room", "idle for keep_alive 10 s"]


def test_a_runner_whose_machine_does_not_answer_is_marked(controller, capsys):
    controller.answers["ListRunners"] = ListRunnersResponse(
        runners=[runner("r-1", node="box2", unreachable=True), runner("r-2", node="box1")]
    )
    assert main(["runners", "list"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("IDLE (?)") == 1
    assert "(?) its machine does not answer, so it gets no requests; `fal node list` says since when" in shown
    assert main(["runners", "list", "--json"]) == 0
    assert [found.get("unreachable") for found in json.loads(capsys.readouterr().out)["runners"]] == [True, None]
    controller.answers["GetRunner"] = GetRunnerResponse(runner=runner("r-1", node="box2", unreachable=True))
    assert main(["runners", "get", "r-1"]) == 0
    assert "box2 (does not answer)" in capsys.readouterr().out


def test_since_is_sent(controller, capsys):
    controller.answers["ListRunners"] = ListRunnersResponse()
    assert main(["runners", "list", "--since", "1h"]) == 0
    sent = controller.request("ListRunners").start_time.ToDatetime(tzinfo=UTC)
    assert abs(datetime.now(UTC) - timedelta(hours=1) - sent) < timedelta(minutes=1)
    assert main(["runners", "list", "--since", "24h"]) == 0


def test_foreign_text_is_not_markup_and_moves_no_cursor(controller, capsys):
    controller.answers["ListRunners"] = ListRunnersResponse(
        runners=[runner("[red]r[/red]", alias="\x1b[2Jevil\u202e", machine_type="a\nb")]
    )
    main(["runners", "list"])
    shown = capsys.readouterr().out
    assert "[red]r[/red]" in shown
    assert "\x1b" not in shown
    assert "^[[2Jevil\\u202e" in shown
    assert "a\\nb" in shown
    main(["runners", "list", "--json"])
    shown = capsys.readouterr().out
    assert shown.isascii()
    assert shown.rstrip("\n").isprintable()
    assert json.loads(shown)["runners"][0]["alias"] == "\x1b[2Jevil\u202e"


def test_stop_and_kill_say_on_stderr_what_goes_on(controller, capsys):
    controller.answers["StopRunner"] = StopRunnerResponse()
    controller.answers["KillRunner"] = KillRunnerResponse()
    assert main(["runners", "stop", "r-1"]) == 0
    assert main(["runners", "kill", "r-2"]) == 0
    assert controller.request("StopRunner").runner_id == "r-1"
    assert not controller.request("StopRunner").replace_first
    assert controller.request("KillRunner").runner_id == "r-2"
    assert [name for name, _ in controller.asked] == ["StopRunner", "KillRunner"], "as the published client"
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "Runner r-1 is stopping.\nRunner r-2 is killed.\n"


def test_stop_tells_a_person_how_many_requests_are_left(controller, monkeypatch):
    controller.answers["StopRunner"] = StopRunnerResponse()
    controller.answers["GetRunner"] = GetRunnerResponse(runner=runner("r-1", RunnerInfo.DRAINING, in_flight_requests=2))
    terminal = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        assert main(["runners", "stop", "r-1"]) == 0
    assert terminal.getvalue() == "Runner r-1 is stopping; it finishes 2 requests first.\n"


def test_stop_with_a_replacement(controller):
    controller.answers["StopRunner"] = StopRunnerResponse()
    assert main(["runners", "stop", "-r", "r-1"]) == 0
    assert controller.request("StopRunner").replace_first


def test_stop_waits_for_the_end(controller, capsys):
    states = iter([RunnerInfo.DRAINING, RunnerInfo.TERMINATED])
    controller.answers["StopRunner"] = StopRunnerResponse()
    controller.answers["GetRunner"] = lambda _request, _context: GetRunnerResponse(
        runner=runner("r-1", next(states), exit_code=0)
    )
    assert main(["runners", "stop", "r-1", "--wait"]) == 0
    assert capsys.readouterr().err == "Runner r-1 is stopping.\nRunner r-1 has ended with exit code 0.\n"
    assert next(states, None) is None


def test_ended_runners_are_those_of_the_last_day(controller, capsys):
    controller.answers["ListRunners"] = ListRunnersResponse(runners=[runner("r-old", RunnerInfo.TERMINATED)])
    assert main(["runners", "list", "--state", "TERMINATED"]) == 0
    sent = controller.request("ListRunners").start_time.ToDatetime(tzinfo=UTC)
    assert abs(datetime.now(UTC) - timedelta(hours=24) - sent) < timedelta(minutes=1)
    captured = capsys.readouterr()
    assert "ended within the last 24 hours" in captured.err
    assert captured.out.startswith("Runners: 0\nRunners Pending: 0\nRunners Setting Up: 0\nRunners Ended: 1\n")


def test_a_refusal_is_reported_on_stderr_with_code_1(controller, capsys):
    controller.answers["StopRunner"] = (grpc.StatusCode.NOT_FOUND, "runner 'r-9' not found\x1b[31m")
    assert main(["runners", "stop", "r-9"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Error: runner 'r-9' not found^[[31m")


def test_debug_shows_the_traceback(controller, capsys):
    controller.answers["StopRunner"] = (grpc.StatusCode.NOT_FOUND, "no")
    assert main(["runners", "stop", "r-9", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_no_controller_says_what_to_do(monkeypatch, capsys):
    monkeypatch.setenv("FAL_KEY", "id:secret")
    assert main(["runners", "list", "--host", "127.0.0.1:1"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: Could not reach the controller at 127.0.0.1:1")
    assert "fal up" in error


def test_no_key_says_what_to_do(capsys):
    assert main(["runners", "list", "--host", "127.0.0.1:1"]) == 1
    assert "FAL_KEY" in capsys.readouterr().err


def test_runners_of_an_app(controller, capsys):
    controller.answers["ListAliasRunners"] = ListAliasRunnersResponse(runners=[runner()])
    assert main(["apps", "runners", "hello", "--env", "staging", "--state", "idle"]) == 0
    shown = capsys.readouterr().out
    assert "Alias" not in shown
    assert "r-1" in shown
    request = controller.request("ListAliasRunners")
    assert request.alias.startswith("hello")
    assert request.environment_name == "staging"


def test_a_terminal_of_80_columns_shows_a_table(controller, monkeypatch):
    ids = ["83dd5028-24bc-4895-9c1a-0d6f4a4e1b7d", "83dd5028-ffff-4895-9c1a-0d6f4a4e1b7d"]
    revision = "0984522d-ce91-4d73-8a2f-7b0c1f3a9e91"
    controller.answers["ListRunners"] = ListRunnersResponse(
        runners=[
            runner(name, machine_type="GPU-H100", revision=revision, state=state)
            for name, state in zip(ids, (RunnerInfo.RUNNING, RunnerInfo.TERMINATED), strict=True)
        ]
    )
    shown = {}
    for form in ("pretty", "wide"):
        terminal = Terminal("")
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            patch.setenv("COLUMNS", "80")
            patch.setenv("NO_COLOR", "1")
            assert main(["runners", "list", "-o", form]) == 0
        shown[form] = terminal.getvalue()
    assert re.search(
        r"^hello +GPU-H100 +83dd5028-2 +0 +N/A +1:02:05 +0984522d +RUNNING$", shown["pretty"], re.MULTILINE
    )
    assert re.search(
        r"^hello +GPU-H100 +83dd5028-f +0 +N/A +1:02:05 +0984522d +TERMINATED$", shown["pretty"], re.MULTILINE
    )
    assert all(name in shown["wide"] for name in (*ids, revision))
