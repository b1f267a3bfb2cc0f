"""`fal keys`, `fal secrets` and `fal environments`."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from fal_cli.main import main
from fal_grpc.v1 import environment_pb2, key_pb2, secret_pb2

CREATED_AT = datetime(2026, 1, 31, 9, tzinfo=UTC)


@pytest.fixture
def piped(monkeypatch):
    """Return a function that sets standard input to a text. It is not a terminal."""

    def pipe(text: str) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))

    pipe("")
    return pipe


def test_a_new_key_is_printed_once_and_alone(controller, capsys):
    controller.answers["CreateUserKey"] = key_pb2.CreateUserKeyResponse(key_id="kid", key_secret="sec")
    assert main(["keys", "create", "--scope", "admin", "--desc", "mine"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "FAL_KEY='kid:sec'\n"
    assert "sec" not in captured.err.replace("secret", "")
    assert controller.request("CreateUserKey").alias == "mine"
    assert main(["keys", "create", "--preset", "API", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"key_id": "kid", "key_secret": "sec"}


def test_permissions_repeat_and_split(controller):
    controller.answers["CreateUserKey"] = key_pb2.CreateUserKeyResponse(key_id="kid", key_secret="sec")
    assert main(["keys", "create", "--permission", "a:b, c:d", "--permission", "e:f"]) == 0
    assert list(controller.request("CreateUserKey").policy.permissions) == ["a:b", "c:d", "e:f"]


def test_without_a_terminal_nothing_is_asked(controller, piped, capsys):
    assert main(["keys", "create"]) == 2
    assert "--preset API" in capsys.readouterr().err
    assert controller.asked == []


def test_listed_keys(controller, capsys):
    info = key_pb2.UserKeyInfo(key_id="kid", scope=key_pb2.CreateUserKeyRequest.API, alias="mine")
    info.created_at.FromDatetime(CREATED_AT)
    info.expires_at.FromDatetime(CREATED_AT + timedelta(days=1))
    info.permissions.append("serverless:apps:run")
    controller.answers["ListUserKeys"] = key_pb2.ListUserKeysResponse(user_keys=[info])
    assert main(["keys", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "keys": [
            {
                "key_id": "kid",
                "created_at": str(CREATED_AT),
                "scope": "API",
                "description": "mine",
                "expires_at": "2026-02-01T09:00:00+00:00",
                "last_used_at": None,
                "permissions": ["serverless:apps:run"],
            }
        ]
    }
    assert main(["key", "list"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split("  ")[0] == "Key ID"
    assert row.split() == ["kid", "2026-01-31T09:00:00Z", "API", "mine"]


def test_revoking_names_the_key(controller):
    controller.answers["RevokeUserKey"] = key_pb2.RevokeUserKeyResponse()
    assert main(["keys", "revoke", "kid"]) == 0
    assert controller.request("RevokeUserKey").key_id == "kid"


def test_secrets_are_set_one_by_one(controller):
    controller.answers["SetSecret"] = secret_pb2.SetSecretResponse()
    assert main(["secrets", "set", "A=1", "B=x=y", "C=", "--env", "staging", "--not-exposed-by-default"]) == 0
    sent = [(request.name, request.value) for _, request in controller.asked]
    assert sent == [("A", "1"), ("B", "x=y"), ("C", "")]
    assert all(request.environment_name == "staging" for _, request in controller.asked)
    assert all(request.HasField("default_exposed") and not request.default_exposed for _, request in controller.asked)


def test_a_secret_comes_from_standard_input(controller, piped):
    controller.answers["SetSecret"] = secret_pb2.SetSecretResponse()
    piped("line one\nline two\n")
    assert main(["secrets", "set", "KEY"]) == 0
    request = controller.request("SetSecret")
    assert request.value == "line one\nline two"
    assert request.default_exposed


def test_an_empty_secret_from_standard_input_is_refused(controller, piped, capsys):
    assert main(["secrets", "set", "KEY"]) == 1
    assert "the value of KEY is empty" in capsys.readouterr().err
    assert controller.asked == []


def test_unset_sends_no_value(controller):
    controller.answers["SetSecret"] = secret_pb2.SetSecretResponse()
    assert main(["secret", "unset", "KEY"]) == 0
    request = controller.request("SetSecret")
    assert request.name == "KEY"
    assert not request.HasField("value")


def test_listed_secrets(controller, capsys, monkeypatch):
    found = secret_pb2.Secret(name="A", environment_name="staging", default_exposed=False)
    found.created_time.FromDatetime(CREATED_AT)
    controller.answers["ListSecrets"] = secret_pb2.ListSecretsResponse(secrets=[found, secret_pb2.Secret(name="B")])
    monkeypatch.setenv("FAL_ENV", "staging")
    assert main(["secrets", "list", "--json"]) == 0
    assert controller.request("ListSecrets").environment_name == "staging"
    first, second = json.loads(capsys.readouterr().out)["secrets"]
    assert first == {"name": "A", "environment": "staging", "created_at": str(CREATED_AT), "default_exposed": False}
    assert second["default_exposed"] is None
    assert main(["secrets", "list"]) == 0
    assert "account default" in capsys.readouterr().out


def test_environments(controller, capsys, piped):
    info = environment_pb2.EnvironmentInfo(name="staging", description="before production")
    info.created_at.FromDatetime(CREATED_AT)
    controller.answers["ListEnvironments"] = environment_pb2.ListEnvironmentsResponse(environments=[info])
    controller.answers["CreateEnvironment"] = environment_pb2.CreateEnvironmentResponse(environment=info)
    controller.answers["DeleteEnvironment"] = environment_pb2.DeleteEnvironmentResponse()
    assert main(["environments", "create", "staging", "--description", "before production"]) == 0
    assert capsys.readouterr().out == "Created environment 'staging'\n"
    assert main(["envs", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "environments": [
            {"name": "staging", "description": "before production", "is_default": False, "created_at": str(CREATED_AT)}
        ]
    }
    # Without a terminal there is no question.
    assert main(["environments", "delete", "staging"]) == 0
    assert capsys.readouterr().out == "Deleted environment 'staging'\n"
    assert controller.request("DeleteEnvironment").name == "staging"


@pytest.mark.parametrize(
    ("arguments", "method"),
    [
        (["keys", "list"], "ListUserKeys"),
        (["secrets", "set", "A=1"], "SetSecret"),
        (["environments", "create", "x"], "CreateEnvironment"),
    ],
)
def test_a_refusal_is_code_1_and_shows_no_secret(arguments, method, controller, capsys):
    controller.answers[method] = (grpc.StatusCode.PERMISSION_DENIED, "this key may not")
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "this key may not" in captured.err
    assert "secret:" not in captured.err


def test_a_key_for_one_app_says_so(controller, capsys):
    controller.answers["CreateUserKey"] = key_pb2.CreateUserKeyResponse(key_id="kid", key_secret="sec")
    assert main(["keys", "create", "--preset", "API", "--for-app", "shop", "--env", "dev"]) == 0
    assert "for API, for the app shop, in the environment dev." in capsys.readouterr().err
    asked = controller.request("CreateUserKey")
    assert (asked.policy_preset, asked.for_app, asked.for_environment) == ("API", "shop", "dev")
