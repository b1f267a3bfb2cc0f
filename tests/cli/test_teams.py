"""`fal teams` and `fal auth token`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from fal_cli.main import main
from fal_grpc.v1 import account_pb2 as pb
from fal_grpc.v1 import key_pb2

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
ALICE = pb.AccountInfo(nickname="alice", kind=pb.ACCOUNT_KIND_USER, full_name="Alice", user_id="user|1")
CREW = pb.AccountInfo(
    nickname="crew", kind=pb.ACCOUNT_KIND_TEAM, full_name="The crew", user_id="team|2", role=pb.MEMBER_ROLE_ADMIN
)


def test_the_list_has_the_published_keys(controller, capsys):
    controller.answers["ListAccounts"] = pb.ListAccountsResponse(accounts=[ALICE, CREW])
    assert main(["teams", "list", "--json"]) == 0
    alice = {"nickname": "alice", "full_name": "Alice", "type": "personal", "is_selected": True, "role": None}
    crew = {"nickname": "crew", "full_name": "The crew", "type": "team", "is_selected": False, "role": "admin"}
    assert json.loads(capsys.readouterr().out) == {"teams": [alice, crew]}
    assert main(["account", "list", "--all"]) == 0
    assert [request.all for _, request in controller.asked] == [False, True]
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split() for row in rows] == [
        ["alice", "Alice", "user", "-", "yes"],
        ["crew", "The", "crew", "team", "admin"],
    ]


def test_a_new_account_shows_its_key_once_and_alone(controller, capsys):
    controller.answers["CreateAccount"] = pb.CreateAccountResponse(account=CREW, key_id="kid", key_secret="sec")
    assert main(["teams", "create", "crew"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "FAL_KEY='kid:sec'\n"
    assert "Created the team crew" in shown.err
    assert controller.asked.pop()[1].kind == pb.ACCOUNT_KIND_TEAM
    assert main(["teams", "create", "alice", "--user", "--name", "Alice L", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"nickname": "crew", "key_id": "kid", "key_secret": "sec"}
    asked = controller.request("CreateAccount")
    assert (asked.nickname, asked.kind, asked.full_name) == ("alice", pb.ACCOUNT_KIND_USER, "Alice L")


def test_members(controller, capsys):
    member = pb.Member(user="alice", role=pb.MEMBER_ROLE_VIEWER)
    member.added_at.FromDatetime(NOON)
    controller.answers["ListMembers"] = pb.ListMembersResponse(members=[member])
    controller.answers["AddMember"] = pb.AddMemberResponse(member=member)
    controller.answers["RemoveMember"] = pb.RemoveMemberResponse()
    assert main(["teams", "members", "crew", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "members": [{"user": "alice", "role": "viewer", "added_at": "2026-01-31T12:00:00+00:00"}]
    }
    assert main(["teams", "add", "crew", "alice", "--role", "viewer"]) == 0
    assert capsys.readouterr().err == "alice is viewer of crew.\n"
    asked = controller.request("AddMember")
    assert (asked.team, asked.user, asked.role) == ("crew", "alice", pb.MEMBER_ROLE_VIEWER)
    assert main(["teams", "remove", "crew", "alice"]) == 0
    asked = controller.request("RemoveMember")
    assert (asked.team, asked.user) == ("crew", "alice")


def test_quotas_are_shown_and_set(controller, capsys):
    bounds = pb.Quotas(requests_per_second=0, runners=4, queued_bytes=1536 * 1024)
    used = pb.Quotas(runners=2, queued_bytes=0)
    controller.answers["GetQuotas"] = pb.GetQuotasResponse(nickname="crew", quotas=bounds, used=used)
    controller.answers["SetQuotas"] = pb.SetQuotasResponse(quotas=bounds)
    assert main(["teams", "quotas", "crew", "--runners", "4", "--data-bytes", "2G", "--queued-bytes", "none"]) == 0
    asked = controller.request("SetQuotas")
    assert asked == pb.SetQuotasRequest(
        nickname="crew", quotas=pb.Quotas(runners=4, data_bytes=2 * 1024**3, queued_bytes=0)
    )
    assert [row.split() for row in capsys.readouterr().out.splitlines()] == [
        ["Quota", "Bound", "Used"],
        ["requests_per_second", "none"],
        ["queued_bytes", "1.5", "MiB", "0", "B"],
        ["runners", "4", "2"],
    ]
    assert main(["teams", "quotas", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["quotas"][0] == {"name": "requests_per_second", "bound": 0, "used": None}
    assert controller.asked.pop()[1].nickname == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["set", "crew"], "--team NAME"),
        (["add", "crew"], "USER"),
        (["quotas", "--runners", "4"], "name the account"),
        (["quotas", "crew", "--runners", "0"], "above 0, or `none`"),
        (["quotas", "crew", "--data-bytes", "5X"], "such as 500M"),
    ],
)
def test_what_is_wrong_is_said(arguments, said, controller, capsys):
    assert main(["teams", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_login_token_is_alone_on_standard_output(controller, capsys):
    answer = key_pb2.CreateLoginTokenResponse(token="a.b.c")
    answer.expires_at.FromDatetime(NOON)
    controller.answers["CreateLoginToken"] = answer
    assert main(["auth", "token", "--expires", "2h"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "a.b.c\n"
    assert "valid until" in shown.err
    assert controller.request("CreateLoginToken").life.ToTimedelta() == timedelta(hours=2)
    assert main(["auth", "token", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"token": "a.b.c", "expires_at": "2026-01-31T12:00:00+00:00"}
