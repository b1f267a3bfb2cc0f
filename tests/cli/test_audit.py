"""`fal audit`."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from fal_cli.main import main
from fal_grpc.v1 import audit_pb2 as pb

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def entry(number: int) -> pb.AuditEntry:
    made = pb.AuditEntry(
        number=number, key_id="6f576f02-x", action="Secrets.SetSecret", target="name=A", source="10.0.0.7:5",
        request_id="r", digest="d",
    )  # fmt: skip
    made.at.FromDatetime(NOON)
    return made


def test_the_list_goes_on_to_the_next_page(controller, capsys):
    def answer(request, context):
        number = int(request.page_token or 3)
        token = str(number - 1) if number > 1 else ""
        return pb.ListAuditEntriesResponse(entries=[entry(number)], next_page_token=token)

    controller.answers["ListAuditEntries"] = answer
    assert main(["audit", "list", "--json", "--limit", "2"]) == 0
    listed = json.loads(capsys.readouterr().out)["entries"]
    assert [each["number"] for each in listed] == [3, 2]
    assert listed[0] == {
        "number": 3, "at": "2026-01-31T12:00:00+00:00", "key_id": "6f576f02-x", "action": "Secrets.SetSecret",
        "target": "name=A", "source": "10.0.0.7:5", "request_id": "r", "digest": "d",
    }  # fmt: skip
    assert main(["audit", "list"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["At", "Key", "Action", "Target", "From"]
    assert len(rows) == 3
    assert rows[0].split() == ["2026-01-31T12:00:00Z", "6f576f02", "Secrets.SetSecret", "name=A", "10.0.0.7:5"]


def test_a_broken_log_is_an_error(controller, capsys):
    controller.answers["VerifyAudit"] = pb.VerifyAuditResponse(rows=3)
    assert main(["audit", "verify"]) == 0
    assert capsys.readouterr().out == "The audit log is intact: 3 entries, each consistent with those before it.\n"
    controller.answers["VerifyAudit"] = pb.VerifyAuditResponse(rows=3, broken_at=2)
    assert main(["audit", "verify"]) == 1
    assert "entry 2 of the audit log was changed" in capsys.readouterr().err
    assert main(["audit", "verify", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"entries": 3, "broken_at": 2}
