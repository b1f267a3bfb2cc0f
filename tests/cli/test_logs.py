"""`fal runners logs`."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from fal_cli.main import main
from fal_grpc.v1 import log_pb2
from fal_grpc.v1.log_pb2 import FollowLogsResponse, ListLogsRequest, ListLogsResponse, LogEntry, RunnerEnded
from fal_grpc.v1.runner_pb2 import GetRunnerResponse, RunnerInfo

CREATED_AT = datetime(2026, 1, 31, 9, tzinfo=UTC)


def entry(number, message="", **fields):
    given = {"runner_id": "r-1", "level": log_pb2.INFO, "source": LogEntry.SOURCE_STDOUT, "app": "hello"}
    found = LogEntry(sequence=number, message=message or f"line {number}", **{**given, **fields})
    found.timestamp.FromDatetime(CREATED_AT + timedelta(seconds=number))
    return found


@pytest.fixture
def stored(controller):
    """Answer with ten lines, from the requested end. A page has at most four."""

    def answer(request, _context):
        entries = [entry(number) for number in range(1, 11)]
        if request.order != ListLogsRequest.ORDER_OLDEST_FIRST:
            entries.reverse()
        entries = entries[: request.lines or None]
        start = int(request.page_token or 0)
        end = start + min(request.page_size or 4, 4)
        return ListLogsResponse(entries=entries[start:end], next_page_token=str(end) if end < len(entries) else "")

    controller.answers["ListLogs"] = answer
    return controller


def shown_numbers(text):
    return [int(number) for number in re.findall(r"line (\d+)", text)]


@pytest.mark.parametrize(
    ("flags", "numbers"),
    [
        ([], range(1, 11)),
        (["-n", "3"], [8, 9, 10]),
        (["--lines", "7"], range(4, 11)),
        (["-n", "+3"], [1, 2, 3]),
        (["-n", "+100"], range(1, 11)),
    ],
)
def test_lines_are_the_newest_or_the_oldest_and_always_in_order(stored, flags, numbers, capsys):
    assert main(["runners", "logs", "r-1", *flags]) == 0
    assert shown_numbers(capsys.readouterr().out) == list(numbers)


def test_a_line_has_time_level_and_message(controller, capsys):
    controller.answers["ListLogs"] = ListLogsResponse(
        entries=[entry(1, "[x] not [/x] markup", level=log_pb2.WARNING), entry(2, "fine")]
    )
    assert main(["runners", "logs", "r-1", "-n", "+2"]) == 0
    local = (CREATED_AT + timedelta(seconds=1)).astimezone().isoformat(timespec="milliseconds")
    assert capsys.readouterr().out.splitlines()[0] == f"{local} WARNING [x] not [/x] markup"


def test_json_is_one_document(stored, capsys):
    assert main(["runners", "log", "r-1", "-n", "+2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["logs"]
    assert [item["sequence"] for item in found["logs"]] == [1, 2]
    assert found["logs"][0] == {
        "timestamp": "2026-01-31T09:00:01Z",
        "level": "INFO",
        "message": "line 1",
        "job_id": "r-1",
        "source": "stdout",
        "sequence": 1,
        "runner_id": "r-1",
        "request_id": "",
        "app": "hello",
        "revision": "",
    }
    assert main(["runners", "logs", "r-1", "--output", "jsonl"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 10


def test_no_lines_are_still_json(controller, capsys):
    controller.answers["ListLogs"] = ListLogsResponse()
    assert main(["runners", "logs", "r-1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"logs": []}


def test_the_filters_are_sent(controller):
    controller.answers["ListLogs"] = ListLogsResponse()
    since, until = "2026-01-31T09:00:00Z", "2026-01-31T10:00:00Z"
    assert main(["runners", "logs", "r-1", "--search", "[oops]", "--since", since, "--until", until]) == 0
    request = controller.request("ListLogs")
    assert request.selector.runner_id == "r-1"
    assert request.selector.search == "[oops]"
    assert request.since.ToDatetime(tzinfo=UTC) == CREATED_AT
    assert request.until.ToDatetime(tzinfo=UTC) == CREATED_AT + timedelta(hours=1)


@pytest.fixture
def ended(controller):
    def answer(_request, _context):
        yield FollowLogsResponse(entries=[entry(1), entry(2)], cursor="2")
        yield FollowLogsResponse(cursor="2")
        yield FollowLogsResponse(
            entries=[entry(3)], cursor="3", runner_ended=RunnerEnded(runner_id="r-1", exit_code=3, reason="it crashed")
        )

    controller.answers["FollowLogs"] = answer
    controller.answers["GetRunner"] = GetRunnerResponse(
        runner=RunnerInfo(runner_id="r-1", state=RunnerInfo.TERMINATED, exit_code=3, state_reason="it crashed")
    )
    return controller


def test_following_ends_with_the_runner_and_says_so_on_stderr(ended, capsys):
    assert main(["runners", "logs", "-f", "r-1", "-n", "1"]) == 0
    captured = capsys.readouterr()
    assert shown_numbers(captured.out) == [1, 2, 3]
    assert captured.err.endswith("Runner r-1 has ended with exit code 3: it crashed\n")
    assert captured.err.startswith("--lines is ignored with --follow")
    since = ended.request("FollowLogs").since.ToDatetime(tzinfo=UTC)
    assert abs(datetime.now(UTC) - timedelta(minutes=1) - since) < timedelta(minutes=1)


def test_following_as_json_is_one_object_a_line(ended, capsys):
    assert main(["runners", "logs", "-f", "r-1", "--json", "--since", "1h"]) == 0
    assert [json.loads(line)["sequence"] for line in capsys.readouterr().out.splitlines()] == [1, 2, 3]


def test_an_unknown_runner(controller, capsys):
    controller.answers["ListLogs"] = (grpc.StatusCode.NOT_FOUND, "runner 'r-9' not found")
    assert main(["runners", "logs", "r-9"]) == 1
    assert "runner 'r-9' not found" in capsys.readouterr().err


def test_a_reconnect_is_reported_on_stderr(controller, capsys):
    def answer(request, context):
        if not request.cursor:
            yield FollowLogsResponse(entries=[entry(1)], cursor="1")
            context.abort(grpc.StatusCode.UNAVAILABLE, "killed")
        assert request.cursor == "1"
        yield FollowLogsResponse(entries=[entry(2)], cursor="2", runner_ended=RunnerEnded(runner_id="r-1"))

    controller.answers["FollowLogs"] = answer
    controller.answers["GetRunner"] = GetRunnerResponse(runner=RunnerInfo(runner_id="r-1", state=RunnerInfo.TERMINATED))
    assert main(["runners", "logs", "r-1", "--follow"]) == 0
    captured = capsys.readouterr()
    assert shown_numbers(captured.out) == [1, 2]
    broke, reached, ended = captured.err.splitlines()
    assert "broke" in broke
    assert "continues where it was" in reached
    assert ended == "Runner r-1 has ended."


def test_source_and_request_are_sent(controller):
    controller.answers["ListLogs"] = ListLogsResponse()
    assert main(["runners", "logs", "r-1", "--source", "stdout", "--source", "stderr", "--request-id", "q-1"]) == 0
    selector = controller.request("ListLogs").selector
    assert list(selector.sources) == [LogEntry.SOURCE_STDOUT, LogEntry.SOURCE_STDERR]
    assert selector.request_id == "q-1"
