"""Destructive commands ask a person, and never a script."""

from __future__ import annotations

import io
import sys

import pytest

from fal.config import edit, load
from fal_cli.main import main
from fal_grpc.v1 import app_pb2, environment_pb2, key_pb2, revision_pb2, secret_pb2

COMMANDS = (
    (["apps", "delete", "hello"], "Delete application 'hello'? Its runners end. (y/N): ", "DeleteAlias"),
    (["apps", "delete-rev", "rev-1"], "Delete revision rev-1? (y/N): ", "DeleteApplication"),
    (["keys", "revoke", "other"], "Revoke key other? (y/N): ", "RevokeUserKey"),
    (["keys", "revoke", "id"], "Revoke key id? It is the key that you use now. (y/N): ", "RevokeUserKey"),
    (["secrets", "unset", "HF"], "Unset secret 'HF'? (y/N): ", "SetSecret"),
    (["environments", "delete", "e"], "Delete environment 'e' and its secrets? (y/N): ", "DeleteEnvironment"),
)


class Terminal(io.StringIO):
    """Play a terminal, for input or for messages."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def person(controller, monkeypatch):
    """Return a function that runs a command with a person's answer, and returns the code and the messages."""
    controller.answers |= {
        "DeleteAlias": app_pb2.DeleteAliasResult(revision="rev-1"),
        "ListApplications": revision_pb2.ListApplicationsResult(),
        "DeleteApplication": revision_pb2.DeleteApplicationResult(),
        "ListUserKeys": key_pb2.ListUserKeysResponse(),
        "RevokeUserKey": key_pb2.RevokeUserKeyResponse(),
        "SetSecret": secret_pb2.SetSecretResponse(),
        "ListEnvironments": environment_pb2.ListEnvironmentsResponse(
            environments=[environment_pb2.EnvironmentInfo(name="e")]
        ),
        "DeleteEnvironment": environment_pb2.DeleteEnvironmentResponse(),
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


def test_an_environment_that_is_not_there_is_not_asked_about(person):
    code, messages = person(["environments", "delete", "nosuch"], "y")
    assert code == 1
    assert messages.startswith("Error: there is no environment 'nosuch'")


def test_a_profile_is_deleted_after_a_yes(person, home):
    with edit() as config:
        config.create_profile("one")
    assert person(["profile", "delete", "one"], "n")[0] == 1
    assert list(load().profiles) == ["one"]
    assert person(["profile", "delete", "one"], "y")[0] == 0
    assert list(load().profiles) == []
