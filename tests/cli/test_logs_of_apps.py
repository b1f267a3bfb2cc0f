"""`fal logs`: the lines of several apps."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from fal_cli.main import main
from fal_grpc.v1 import app_pb2, log_pb2

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def line(app: str, seconds: int, message: str) -> log_pb2.LogEntry:
    stamp = Timestamp()
    stamp.FromDatetime(NOON + timedelta(seconds=seconds))
    return log_pb2.LogEntry(timestamp=stamp, message=message, runner_id=f"{app}-runner", app=app, sequence=seconds + 1)


LINES = {
    "shop": [line("shop", 0, "shop opens"), line("shop", 2, "GET /health 200"), line("shop", 4, "shop closes")],
    "shop-api": [line("shop-api", 1, "api opens"), line("shop-api", 3, "api closes")],
    "bank": [line("bank", 0, "bank opens")],
}


@pytest.fixture
def three(controller):
    def listed(request, _context):
        lines = LINES[request.selector.app.app]
        oldest_first = request.order == log_pb2.ListLogsRequest.ORDER_OLDEST_FIRST
        return log_pb2.ListLogsResponse(entries=lines if oldest_first else lines[::-1])

    def followed(request, context):
        yield log_pb2.FollowLogsResponse(entries=LINES[request.selector.app.app], cursor="1")
        controller.gone.wait(60)

    controller.answers["ListAliases"] = app_pb2.ListAliasesResult(
        aliases=[app_pb2.AliasInfo(alias=name) for name in LINES]
    )
    controller.answers["ListLogs"], controller.answers["FollowLogs"] = listed, followed
    return controller


def shown(capsys) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_the_lines_of_apps_that_match_are_merged(three, capsys) -> None:
    assert main(["logs", "^shop", "--exclude", "/health", "--template", "{app}: {message}"]) == 0
    assert shown(capsys) == [
        "shop: shop opens",
        "shop-api: api opens",
        "shop-api: api closes",
        "shop: shop closes",
    ]
    assert main(["logs", "shop", "-n", "2", "--template", "{message}"]) == 0
    assert shown(capsys) == ["api closes", "shop closes"]
    assert main(["logs", "bank"]) == 0
    (only,) = shown(capsys)
    assert re.fullmatch(r"bank bank-run \S+ \S+ +bank opens", only)
    assert main(["logs", "--output", "jsonl"]) == 0
    assert [json.loads(text)["app"] for text in shown(capsys)] == [
        "shop",
        "bank",
        "shop-api",
        "shop",
        "shop-api",
        "shop",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nosuch"], "no application matches"),
        (["["], "is not a regular expression"),
        (["shop", "--template", "{nosuch}"], "{nosuch} is not known"),
        (["shop", "-f", "-n", "3"], "--since"),
    ],
)
def test_what_cannot_be_shown_says_why(three, capsys, words, said) -> None:
    assert main(["logs", *words]) != 0
    assert said in capsys.readouterr().err


def test_apps_that_come_later_are_followed_too(three) -> None:
    def watched(_request, _context):
        yield app_pb2.WatchAppsResponse(snapshot=True, apps=[app_pb2.AliasInfo(alias="shop")], version="1")
        yield app_pb2.WatchAppsResponse(
            apps=[app_pb2.AliasInfo(alias="shop-api"), app_pb2.AliasInfo(alias="bank")], version="2"
        )
        three.gone.wait(60)

    three.answers["WatchApps"] = watched
    with subprocess.Popen(
        [sys.executable, "-m", "fal_cli", "logs", "shop", "-f", "--template", "{app} {message}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        found = sorted(process.stdout.readline() for _ in range(5))
        process.send_signal(signal.SIGINT)
        _, notes = process.communicate(timeout=60)
    assert process.returncode == 130
    assert found == sorted(f"{app} {entry.message}\n" for app in ("shop", "shop-api") for entry in LINES[app])
    assert notes.splitlines() == ["+ shop", "+ shop-api"]
