"""Destructive commands ask a person, and never a script."""

from __future__ import annotations

import argparse
import io
import sys

import grpc
import pytest

from fal.config import edit, load
from fal_cli.main import main
from fal_cli.prompts import confirm
from fal_grpc.v1 import account_pb2, app_pb2, drain_pb2, environment_pb2, key_pb2, notice_pb2, revision_pb2, secret_pb2
from tests.support.commands import all_commands

COMMANDS = (
    (["apps", "delete", "hello"], "Delete application 'hello'? Its runners end. (y/N): ", "DeleteAlias"),
    (["apps", "delete-rev", "rev-1"], "Delete revision rev-1? (y/N): ", "DeleteApplication"),
    (["keys", "revoke", "other"], "Revoke key other? (y/N): ", "RevokeUserKey"),
    (["keys", "revoke", "id"], "Revoke key id? It is the key that you use now. (y/N): ", "RevokeUserKey"),
    (["secrets", "unset", "HF"], "Unset secret 'HF'? (y/N): ", "SetSecret"),
    (["drains", "delete", "loki"], "Delete drain 'loki'? (y/N): ", "DeleteDrain"),
    (["notices", "delete", "ops"], "Delete notice 'ops'? (y/N): ", "DeleteNotice"),
    (["environments", "delete", "e"], "Delete environment 'e' and its secrets? (y/N): ", "DeleteEnvironment"),
    (["teams", "rename", "crew", "gang"], "Rename crew to gang? Its apps move to /gang/... (y/N): ", "RenameAccount"),
    (
        ["teams", "delete", "crew"],
        (
            "Delete crew with its apps, keys and secrets, 2 runners, 1 queued request and 3.0 KiB in /data? This "
            "cannot be undone. (y/N): "
        ),
        "DeleteAccount",
    ),
    (["teams", "remove", "crew", "ann"], "Remove ann from crew? (y/N): ", "RemoveMember"),
)


class Terminal(io.StringIO):
    """A fake terminal, for input or for messages."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def person(controller, monkeypatch):
    """Return a function that runs a command with a person's answer. It returns the code and the messages."""
    controller.answers |= {
        "DeleteAlias": app_pb2.DeleteAliasResult(revision="rev-1"),
        "ListAliases": lambda request, _: app_pb2.ListAliasesResult(
            aliases=[] if request.environment_name == "e" else [app_pb2.AliasInfo(alias="hello")]
        ),
        "ListApplications": revision_pb2.ListApplicationsResult(
            applications=[revision_pb2.ApplicationInfo(application_id="rev-1")]
        ),
        "DeleteApplication": revision_pb2.DeleteApplicationResult(),
        "ListDrains": drain_pb2.ListDrainsResponse(drains=[drain_pb2.Drain(name="loki")]),
        "DeleteDrain": drain_pb2.DeleteDrainResponse(),
        "ListNotices": notice_pb2.ListNoticesResponse(notices=[notice_pb2.Notice(name="ops")]),
        "DeleteNotice": notice_pb2.DeleteNoticeResponse(),
        "ListUserKeys": key_pb2.ListUserKeysResponse(
            user_keys=[key_pb2.UserKeyInfo(key_id=name) for name in ("id", "other")]
        ),
        "RevokeUserKey": key_pb2.RevokeUserKeyResponse(),
        "ListSecrets": secret_pb2.ListSecretsResponse(secrets=[secret_pb2.Secret(name="HF")]),
        "SetSecret": secret_pb2.SetSecretResponse(),
        "ListEnvironments": environment_pb2.ListEnvironmentsResponse(
            environments=[environment_pb2.EnvironmentInfo(name="e")]
        ),
        "DeleteEnvironment": environment_pb2.DeleteEnvironmentResponse(),
        "ListMembers": account_pb2.ListMembersResponse(members=[account_pb2.Member(user="ann")]),
        "RenameAccount": account_pb2.RenameAccountResponse(account=account_pb2.AccountInfo(nickname="gang")),
        "GetQuotas": account_pb2.GetQuotasResponse(
            used=account_pb2.Quotas(runners=2, queued_requests=1, data_bytes=3072)
        ),
        "DeleteAccount": account_pb2.DeleteAccountResponse(removed=True),
        "RemoveMember": account_pb2.RemoveMemberResponse(),
    }

    def run(arguments, answer):
        messages = Terminal()
        with monkeypatch.context() as patch:
            patch.setenv("NO_COLOR", "1")
            patch.setattr(sys, "stdin", Terminal(f"{answer}\n"))
            patch.setattr(sys, "stderr", messages)
            code = main(arguments)
        return code, messages.getvalue()

    return run


def called(controller):
    return {name for name, _ in controller.asked}


@pytest.mark.parametrize(("arguments", "question", "method"), COMMANDS)
def test_a_person_is_asked_and_nothing_happens_without_a_yes(controller, person, arguments, question, method):
    code, messages = person(arguments, "")
    assert (code, messages) == (1, f"{question}Error: not confirmed: nothing was changed\n")
    assert method not in called(controller)


@pytest.mark.parametrize(("arguments", "question", "method"), COMMANDS)
def test_yes_is_carried_out(controller, person, arguments, question, method):
    code, messages = person(arguments, "y")
    assert code == 0
    assert messages.startswith(question)
    assert method in called(controller)


@pytest.mark.parametrize(("arguments", "question", "method"), COMMANDS)
def test_nobody_is_asked_with_yes_or_without_a_terminal(controller, person, capsys, arguments, question, method):
    code, messages = person([*arguments, "--yes"], "")
    assert code == 0
    assert question not in messages
    assert method in called(controller)
    controller.asked.clear()
    assert main(arguments) == 0
    assert method in called(controller)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["apps", "delete", "nosuch"], "Application 'nosuch' not found: `fal apps list` shows which exist"),
        (["apps", "delete", "hello", "--env", "e"], "Application 'hello' not found"),
        (["apps", "delete-rev", "nosuch"], "revision 'nosuch' not found: `fal apps list-rev` shows which exist"),
        (["keys", "revoke", "nosuch"], "key 'nosuch' not found: `fal keys list` shows which exist"),
        (["secrets", "unset", "NOSUCH"], "secret 'NOSUCH' not found: `fal secrets list` shows which exist"),
        (["environments", "delete", "nosuch"], "environment 'nosuch' not found: `fal environments list` shows which"),
        (["teams", "remove", "crew", "bob"], "'bob' is not a member of crew: `fal teams members crew` shows who is"),
        (["profile", "delete", "nosuch"], "There is no profile 'nosuch'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_nobody_is_asked_about_what_does_not_exist(person, arguments, message):
    code, messages = person(arguments, "y")
    assert code == 1
    assert messages.startswith(f"Error: {message}")
    assert "(y/N)" not in messages


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["files", "rm", "nosuch"], "/data/nosuch not found: `fal files list` shows what there is"),
        (["files", "rm", "/data/no/such"], "/files/list//data/no not found"),
        (["queue", "flush", "nosuch"], "/nosuch/queue not found"),
    ],
)
def test_nobody_is_asked_about_files_and_queues_that_do_not_exist(person, rest, arguments, message):
    rest.answers |= {"/files/list//data": [], "/users/current": {"nickname": "local"}}
    code, messages = person(arguments, "y")
    assert (code, "(y/N)" in messages) == (1, False)
    assert message in messages


def test_who_may_not_list_is_asked_all_the_same(controller, person):
    controller.answers["ListUserKeys"] = (grpc.StatusCode.PERMISSION_DENIED, "may not list keys")
    code, messages = person(["keys", "revoke", "other"], "y")
    assert code == 0
    assert messages.startswith("Revoke key other? (y/N): ")


def test_every_command_that_takes_yes_is_in_these_tests():
    asking = {" ".join(path) for path, parser in all_commands() if "--yes" in parser._option_string_actions}
    asking.discard("deploy")  # it asks whether to deploy
    tested = {" ".join(arguments[:2]) for arguments, *_ in COMMANDS}
    assert asking == tested | {"profile delete", "files rm", "queue flush", "skills install", "node remove"}


def test_a_profile_is_deleted_after_a_yes(person, home):
    with edit() as config:
        config.create_profile("one")
    assert person(["profile", "delete", "one"], "n")[0] == 1
    assert list(load().profiles) == ["one"]
    assert person(["profile", "delete", "one"], "y")[0] == 0
    assert list(load().profiles) == []


def test_nobody_is_asked_if_there_is_nothing_to_destroy(monkeypatch):
    messages = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stderr", messages)
    confirm(argparse.Namespace(yes=False), lambda: None)
    assert messages.getvalue() == ""
