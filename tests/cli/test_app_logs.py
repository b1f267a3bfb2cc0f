"""`fal apps logs`."""

from __future__ import annotations

import json
import re

import grpc
import pytest

from fal_cli.main import main
from fal_grpc.v1.log_pb2 import FollowLogsResponse, ListLogsRequest, ListLogsResponse, LogEntry
from tests.cli.test_logs import entry

FIRST, SECOND = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


@pytest.fixture
def two_runners(controller):
    controller.answers["ListLogs"] = ListLogsResponse(
        entries=[
            entry(1, "one", runner_id=FIRST),
            entry(1, "two", runner_id=SECOND),
            entry(2, "three", runner_id=FIRST),
            entry(1, "four", runner_id="build-0123456789ab-1"),
        ]
    )
    return controller


def test_each_line_begins_with_its_runner(two_runners, capsys):
    assert main(["apps", "logs", "hello"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [(line.split()[0], line.split()[-1]) for line in lines] == [
        ("aaaaaaaa", "one"),
        ("bbbbbbbb", "two"),
        ("aaaaaaaa", "three"),
        ("build", "four"),
    ]


def test_each_runner_has_a_color(two_runners, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(["app", "log", "hello"]) == 0
    lines = capsys.readouterr().out.splitlines()
    colors = [found[1] for line in lines if (found := re.match(r"\x1b\[(\d+)m", line))]
    assert len(colors) == len(lines)
    assert colors[0] == colors[2]
    assert len(set(colors)) == 3


def test_every_filter_is_sent(controller):
    controller.answers["ListLogs"] = ListLogsResponse()
    flags = ["--env", "dev", "--search", "x", "--source", "build", "--request-id", "q-1", "-n", "+5", "--since", "1h"]
    assert main(["apps", "logs", "hello", *flags]) == 0
    request = controller.request("ListLogs")
    assert (request.selector.app.app, request.selector.app.environment_name) == ("hello", "dev")
    assert (request.selector.search, request.selector.request_id) == ("x", "q-1")
    assert list(request.selector.sources) == [LogEntry.SOURCE_BUILD]
    assert (request.lines, request.order) == (5, ListLogsRequest.ORDER_OLDEST_FIRST)
    assert request.HasField("since")


def test_jsonl_has_one_object_a_line(two_runners, capsys):
    assert main(["apps", "logs", "hello", "--output", "jsonl"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [item["message"] for item in found] == ["one", "two", "three", "four"]
    assert found[0]["runner_id"] == FIRST


def test_the_newest_lines_and_then_new_ones(controller, capsys):
    """End the stream, which an app never does. The error is not retried."""
    controller.answers["ListLogs"] = ListLogsResponse(entries=[entry(2, runner_id=FIRST), entry(1, runner_id=FIRST)])

    def answer(request, context):
        yield FollowLogsResponse(entries=[entry(2, runner_id=FIRST), entry(3, runner_id=FIRST)], cursor="3")
        yield FollowLogsResponse(entries=[entry(1, "of another", runner_id=SECOND)], cursor="4")
        context.abort(grpc.StatusCode.NOT_FOUND, "the app is gone")

    controller.answers["FollowLogs"] = answer
    assert main(["apps", "logs", "hello", "-f", "-n", "2"]) == 1
    captured = capsys.readouterr()
    assert [line.split(maxsplit=3)[3] for line in captured.out.splitlines()] == [
        "line 1",
        "line 2",
        "line 3",
        "of another",
    ]
    assert "the app is gone" in captured.err


def test_wrong_usage(capsys):
    assert main(["apps", "logs", "hello", "-f", "-n", "+2"]) == 2
    assert "use --since" in capsys.readouterr().err
    assert main(["apps", "logs", "hello", "-f", "--until", "now"]) == 2
    assert "until it is interrupted" in capsys.readouterr().err
    assert main(["apps", "logs", "hello", "--source", "stdin"]) == 2
    assert "invalid choice: 'stdin'" in capsys.readouterr().err
