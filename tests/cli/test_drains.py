"""`fal drains`: the requests of each command, and the output."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

import pytest

from fal_cli.main import main
from fal_grpc.v1 import drain_pb2 as pb
from fal_grpc.v1 import log_pb2

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def drain(**fields) -> pb.Drain:
    made = pb.Drain(name="loki", url="https://loki.test/push", format=pb.DRAIN_FORMAT_LOKI, least_level=log_pb2.INFO)
    made.created_at.FromDatetime(NOON)
    made.MergeFrom(pb.Drain(**fields))
    return made


@pytest.fixture
def created(controller) -> list[pb.CreateDrainRequest]:
    asked: list[pb.CreateDrainRequest] = []

    def answer(request, context):
        asked.append(request)
        return pb.CreateDrainResponse(drain=drain())

    controller.answers["CreateDrain"] = answer
    return asked


def test_create_sends_what_is_given(created, capsys):
    words = ["--format", "loki", "--app", "a", "--app", "b", "--level", "warning", "--header", "x=y=z"]
    assert main(["drains", "create", "loki", "https://loki.test/push?k=1", *words]) == 0
    assert created == [
        pb.CreateDrainRequest(
            name="loki",
            url="https://loki.test/push?k=1",
            format=pb.DRAIN_FORMAT_LOKI,
            apps=["a", "b"],
            least_level=log_pb2.WARNING,
            headers={"x": "y=z"},
        )
    ]
    assert "Created drain loki." in capsys.readouterr().err


def test_secrets_come_from_standard_input(created, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("k" * 64 + "\n"))
    assert main(["drains", "create", "d", "https://x.test", "--signing-key"]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("Bearer t\n"))
    assert main(["drains", "create", "d", "https://x.test", "--header", "authorization"]) == 0
    assert created[0].signing_key == "k" * 64
    assert dict(created[1].headers) == {"authorization": "Bearer t"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--header", "a", "--signing-key"], "only one value"),
        (["--header", "=a"], "no name before"),
        (["--signing-key"], "nothing was read"),
    ],
)
def test_what_cannot_be_read_is_a_wrong_use(created, monkeypatch, capsys, words, said):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["drains", "create", "d", "https://x.test", *words]) == 2
    assert said in capsys.readouterr().err
    assert created == []


def test_the_list_shows_how_far_each_is(controller, capsys):
    behind = drain(name="b", unsent_lines=12, lost_lines=3, sent_lines=40, last_error="the receiver answered 400")
    behind.oldest_unsent_at.FromDatetime(datetime(2020, 1, 1, tzinfo=UTC))
    controller.answers["ListDrains"] = pb.ListDrainsResponse(drains=[drain(), behind, drain(name="p", paused=True)])
    assert main(["drains", "list"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:6] == ["Name", "Format", "State", "Sent", "Unsent", "Lost"]
    assert [row.split()[2] for row in rows] == ["ok", "failing", "paused"]
    assert "12 (" in rows[1]
    assert "the receiver answered 400" in rows[1]
    assert main(["drains", "list", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["drains"][1]
    assert (shown["unsent_lines"], shown["lost_lines"], shown["least_level"]) == (12, 3, "INFO")


def test_get_shows_one(controller, capsys):
    controller.answers["GetDrain"] = pb.GetDrainResponse(drain=drain(header_names=["x"], signed=True))
    assert main(["drains", "get", "loki"]) == 0
    shown = capsys.readouterr().out
    assert "Headers:     x\n" in shown
    assert "Signed:      yes\n" in shown
    assert "Sent:        0 lines\n" in shown
    assert main(["drains", "get", "loki", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "loki"


@pytest.mark.parametrize(
    ("command", "method", "answer"),
    [
        ("pause", "PauseDrain", pb.PauseDrainResponse()),
        ("resume", "ResumeDrain", pb.ResumeDrainResponse()),
        ("delete", "DeleteDrain", pb.DeleteDrainResponse()),
    ],
)
def test_the_others_name_a_drain(controller, capsys, command, method, answer):
    controller.answers[method] = answer
    assert main(["drains", command, "loki"]) == 0
    assert method in {name for name, _ in controller.asked}
    assert "drain loki" in capsys.readouterr().err


def test_a_warning_of_the_controller_is_shown(controller, capsys):
    controller.answers["CreateDrain"] = pb.CreateDrainResponse(drain=drain(), warnings=["there is no app 'b' yet"])
    assert main(["drains", "create", "loki", "https://loki.test/"]) == 0
    assert "Warning: there is no app 'b' yet\n" in capsys.readouterr().err
