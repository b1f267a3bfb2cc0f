"""`fal requests` and `fal apps stats`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from fal_cli.main import main
from fal_grpc.v1 import log_pb2
from fal_grpc.v1 import request_pb2 as pb

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
IDS = ["6f576f02-0000-4000-8000-00000000000a", "83dd5028-0000-4000-8000-00000000000b"]


def record(number: int = 0, **changes: object) -> pb.RequestRecord:
    made = pb.RequestRecord(
        request_id=IDS[number], app="shop", revision_id="rev", runner_id="runner", endpoint="/items/{item}",
        method="POST", key_id="k", status_code=500, status=pb.REQUEST_STATUS_ERROR, error_type="runner_server_error",
        bytes_in=10, bytes_out=2048, attempt=1, cold_start=True,
    )  # fmt: skip
    made.MergeFrom(pb.RequestRecord(**changes))  # type: ignore[arg-type]
    made.received_at.FromDatetime(NOON)
    made.started_at.FromDatetime(NOON + timedelta(seconds=2))
    made.ended_at.FromDatetime(NOON + timedelta(seconds=2.5))
    return made


def left() -> pb.RequestRecord:
    made = record(1, status=pb.REQUEST_STATUS_LEFT, error_type="client_disconnected")
    made.ClearField("status_code")
    made.ClearField("started_at")
    return made


def test_the_list_and_its_filters(controller, capsys):
    asked = []

    def answer(request, context):
        asked.append(request)
        return pb.ListRequestsResponse(requests=[record(), left()], cursor="c")

    controller.answers["ListRequests"] = answer
    arguments = [
        "--status",
        "error",
        "--endpoint",
        "/x",
        "--runner",
        "r",
        "--key",
        "key",
        "--env",
        "dev",
        "--limit",
        "5",
    ]
    assert main(["requests", "list", "shop", *arguments]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:6] == ["Request", "ID", "App", "Endpoint", "End", "Took"]
    assert rows[0].split()[:6] == [IDS[0], "shop", "/items/{item}", "500", "2.50", "s"]
    assert rows[1].split()[3] == "left"
    (request,) = asked
    assert (request.application_name, request.environment_name, request.page_size) == ("shop", "dev", 5)
    assert (request.status, request.endpoint) == (pb.REQUEST_STATUS_ERROR, "/x")
    assert (request.runner_id, request.key_id) == ("r", "key")
    assert main(["requests", "list", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["requests"]
    assert (first["status"], first["status_code"], first["duration"], first["wait"]) == ("error", 500, 2.5, 2.0)
    assert (second["status"], second["status_code"], second["started_at"]) == ("left", None, None)


def test_one_request_by_its_beginning_with_its_logs(controller, capsys):
    controller.answers["ListRequests"] = pb.ListRequestsResponse(requests=[record(), left()])

    def get(request, context):
        assert request.request_id == IDS[0]
        return pb.GetRequestResponse(request=record())

    def logs(request, context):
        assert request.selector.request_id == IDS[0]
        assert request.selector.app.app == "shop"
        line = log_pb2.LogEntry(message="it broke", level=log_pb2.LogLevel.ERROR, runner_id="runner")
        line.timestamp.FromDatetime(NOON)
        return log_pb2.ListLogsResponse(entries=[line])

    controller.answers["GetRequest"], controller.answers["ListLogs"] = get, logs
    assert main(["requests", "get", IDS[0][:8], "--logs"]) == 0
    written = capsys.readouterr().out
    assert "Ended:      500, runner_server_error\n" in written
    assert "Waited:     2.00 s, for a runner to start\n" in written
    assert "Came by:    a direct call\n" in written
    assert written.endswith("it broke\n")
    assert main(["requests", "get", IDS[0], "--logs", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["request_id"] == IDS[0]
    assert [line["message"] for line in found["logs"]] == ["it broke"]


def test_the_tail_goes_on_behind_what_it_has_shown(controller, capsys):
    tokens = []

    pages = [
        pb.ListRequestsResponse(requests=[record()], cursor="first", next_page_token="first"),
        pb.ListRequestsResponse(requests=[left()], cursor="second", next_page_token="second"),
    ]

    def answer(request, context):
        assert request.oldest_first
        tokens.append(request.page_token)
        if len(tokens) > len(pages):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "the key has ended")
        return pages[len(tokens) - 1]

    controller.answers["ListRequests"] = answer
    assert main(["requests", "tail", "shop", "-o", "jsonl"]) != 0
    shown = [json.loads(line)["request_id"] for line in capsys.readouterr().out.splitlines()]
    assert shown == IDS
    assert tokens == ["", "first", "second"]


def quantiles(seconds: float) -> pb.DurationQuantiles:
    made = pb.DurationQuantiles()
    for name in ("p50", "p75", "p90", "p95", "p99", "sum"):
        getattr(made, name).FromTimedelta(timedelta(seconds=seconds))
    return made


def stats(endpoint: str, codes: dict[int, int]) -> pb.RequestStats:
    made = pb.RequestStats(
        app="shop", endpoint=endpoint, count=sum(codes.values()), status_codes=codes, cold_starts=1,
        total=quantiles(0.25), wait=quantiles(0.1), run=quantiles(0.15),
    )  # fmt: skip
    made.since.FromDatetime(NOON)
    made.until.FromDatetime(NOON + timedelta(seconds=100))
    return made


def test_stats_by_endpoint_and_of_all(controller, capsys):
    def answer(request, context):
        found = [stats("/", {200: 150, 500: 50}), stats("/x", {404: 1, 0: 1})]
        return pb.GetRequestStatsResponse(stats=found if request.by_endpoint else [stats("", {200: 202})])

    controller.answers["GetRequestStats"] = answer
    assert main(["apps", "stats", "shop", "--columns", "endpoint,requests,per-second,p99,errors,cold"]) == 0
    head, *rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert head == ["Endpoint", "Requests", "Per", "Second", "p99", "Errors", "Cold"]
    assert rows == [
        ["/", "200", "2.00", "250", "ms", "25.0%", "1"],
        ["/x", "2", "0.02", "250", "ms", "0.0%", "1"],
        ["(all)", "202", "2.02", "250", "ms", "0.0%", "1"],
    ]
    assert main(["apps", "stats", "shop", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)["stats"][0]
    assert (first["endpoint"], first["status_codes"], first["cold"]) == ("/", {"200": 150, "500": 50}, None)
    assert first["total"]["p99"] == 0.25


@pytest.mark.parametrize(
    "wrong", [["list", "--limit", "0"], ["list", "--status", "dead"], ["get"], ["tail", "--since", "x"]]
)
def test_what_cannot_be_asked(controller, capsys, wrong):
    assert main(["requests", *wrong]) in {1, 2}
    assert capsys.readouterr().err
