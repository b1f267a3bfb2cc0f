"""`fal notices`: what each command sends, and what it shows of notices."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

import pytest

from fal_cli.main import main
from fal_grpc.v1 import notice_pb2 as pb

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def notice(**fields) -> pb.Notice:
    made = pb.Notice(name="ops", form=pb.NOTICE_FORM_SLACK, receiver="slack.test", thresholds={"queue-size": 50})
    made.created_at.FromDatetime(NOON)
    made.MergeFrom(pb.Notice(**fields))
    return made


def problem(**fields) -> pb.NoticeProblem:
    made = pb.NoticeProblem(condition="queue-size", subject="hello", value=51, detail="51 requests wait")
    made.began_at.FromDatetime(NOON)
    made.MergeFrom(pb.NoticeProblem(**fields))
    return made


@pytest.fixture
def created(controller) -> list[pb.CreateNoticeRequest]:
    asked: list[pb.CreateNoticeRequest] = []

    def answer(request, context):
        asked.append(request)
        return pb.CreateNoticeResponse(notice=notice())

    controller.answers["CreateNotice"] = answer
    return asked


def test_create_sends_what_is_given(created, capsys):
    words = ["--format", "email", "--on", "queue-size=50", "--on", "error-share", "--app", "a", "--to", "a@b.c"]
    assert main(["notices", "create", "ops", "smtp://mail.test", *words, "--to", "d@e.f", "--from", "x@y.z"]) == 0
    assert created == [
        pb.CreateNoticeRequest(
            name="ops",
            url="smtp://mail.test",
            form=pb.NOTICE_FORM_EMAIL,
            thresholds={"queue-size": 50, "error-share": 0},
            apps=["a"],
            to=["a@b.c", "d@e.f"],
            sender="x@y.z",
        )
    ]
    assert "Created notice ops. `fal notices test ops`" in capsys.readouterr().err


def test_secrets_come_from_standard_input(created, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("k" * 64 + "\n"))
    assert main(["notices", "create", "n", "https://x.test", "--signing-key"]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("https://hooks.slack.test/secret\n"))
    assert main(["notices", "create", "n", "-", "--format", "slack"]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("pass\n"))
    words = ["--format", "email", "--to", "a@b.c", "--password"]
    assert main(["notices", "create", "n", "smtps://me@mail.test", *words]) == 0
    assert created[0].signing_key == "k" * 64
    assert created[1].url == "https://hooks.slack.test/secret"
    assert created[2].password == "pass"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-", "--signing-key"], "only one value"),
        (["https://x.test", "--on", "queue-size=many"], "'many' is not a number"),
        (["https://x.test", "--signing-key"], "nothing was read in place of the signing key"),
        (["-"], "nothing was read in place of the URL"),
    ],
)
def test_what_cannot_be_read_is_a_wrong_use(created, monkeypatch, capsys, words, said):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["notices", "create", "n", *words]) == 2
    assert said in capsys.readouterr().err
    assert created == []


def test_list_shows_who_is_told_and_what_failed(controller, capsys):
    failing = notice(name="mail", form=pb.NOTICE_FORM_EMAIL, last_error="the server is away", problems=[problem()])
    controller.answers["ListNotices"] = pb.ListNoticesResponse(notices=[notice(), failing])
    assert main(["notices", "list"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].split("  ")[0] == "Name"
    assert "the server is away" in "".join(rows)
    assert main(["notices", "list", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["notices"]
    assert [(each["name"], each["form"], len(each["problems"])) for each in shown] == [
        ("ops", "slack", 0),
        ("mail", "email", 1),
    ]
    assert shown[0]["thresholds"] == {"queue-size": 50}


def test_get_shows_the_problems(controller, capsys):
    controller.answers["GetNotice"] = pb.GetNoticeResponse(notice=notice(problems=[problem()], apps=["hello"]))
    assert main(["notices", "get", "ops"]) == 0
    shown = capsys.readouterr().out
    assert "Conditions:  queue-size=50\n" in shown
    assert "Apps:        hello\n" in shown
    assert "  queue-size of hello: 51 requests wait (began 2026-01-31T12:00:00Z; not told yet)\n" in shown
    assert main(["notices", "get", "ops", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["problems"][0]["value"] == 51


@pytest.mark.parametrize(
    ("command", "method", "answer", "said"),
    [
        (["test", "ops"], "TestNotice", pb.TestNoticeResponse(), "The receiver of notice ops took the test."),
        (["delete", "ops", "--yes"], "DeleteNotice", pb.DeleteNoticeResponse(), "Deleted notice ops."),
    ],
)
def test_the_others_name_a_notice(controller, capsys, command, method, answer, said):
    controller.answers[method] = answer
    controller.answers["ListNotices"] = pb.ListNoticesResponse(notices=[notice()])
    assert main(["notices", *command]) == 0
    assert said in capsys.readouterr().err
    assert (method, "ops") in [(name, getattr(request, "name", "")) for name, request in controller.asked]
