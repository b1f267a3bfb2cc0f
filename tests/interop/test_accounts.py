"""The official client's keys, secrets, environments, and its own account."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import replace
from pathlib import Path

import pytest

from tests.interop.records import covers
from tests.support.controller import Controller
from tests.support.official import Official


def test_a_wrong_key_is_refused_in_words(controller: Controller, official: Official) -> None:
    stranger = Official(python=official.python, home=official.home, host=controller.host, key="no:one")
    done = stranger.fal("runners", "list", check=False)
    assert done.returncode == 1
    assert "✘" in done.stdout
    assert "key" in done.stdout


@covers("auth whoami", "doctor", "profile list")
def test_who_and_where(controller: Controller, official: Official) -> None:
    assert "'local'" in official.fal("auth", "whoami").stdout
    assert official.json("doctor")["FAL_HOST"] == controller.host
    assert official.json("profile", "list") == {"profiles": []}


@covers("profile create, set, host, unset, delete", "--team")
def test_profiles_and_teams(official: Official, tmp_path: Path) -> None:
    own = Official(python=official.python, home=tmp_path, host=official.host, key=official.key)
    own.fal("profile", "create", "mine")
    own.fal("profile", "set", "mine")
    own.fal("profile", "host", "api.example.com")
    (profile,) = own.json("profile", "list")["profiles"]
    assert (profile["profile"], profile["is_set"]) == ("mine", True)
    own.fal("profile", "unset")
    own.fal("profile", "delete", "mine")
    assert own.json("profile", "list") == {"profiles": []}
    output = official.fal("apps", "list", "--team", "another").stdout
    assert "Ignoring explicit team" in output
    assert "local" in output


@covers("account list, set, unset", "--team", "auth whoami")
def test_a_member_acts_for_a_team(controller: Controller, official: Official, tmp_path: Path) -> None:
    user, team = (f"{name}{secrets.token_hex(4)}" for name in ("ann", "crew"))
    made = json.loads(controller.fal("teams", "create", user, "--user", "--json").stdout)
    ann = replace(controller, key=f"{made['key_id']}:{made['key_secret']}")
    controller.fal("teams", "create", team)
    controller.fal("teams", "add", team, user, "--role", "developer")
    token = json.loads(ann.fal("auth", "token", "--json").stdout)["token"]
    login = tmp_path / ".fal" / "auth0_token"
    login.parent.mkdir()
    login.write_text(f"\n{token}\n")
    member = Official(
        python=official.python, home=tmp_path, host=official.host, key="", extra={"FAL_FORCE_AUTH_BY_USER": "1"}
    )
    listed = member.fal("account", "list").stdout
    assert (user in listed, team in listed) == (True, True), listed
    assert f"'{user}'" in member.fal("auth", "whoami").stdout
    member.fal("account", "set", team)
    assert f"'{team}'" in member.fal("auth", "whoami").stdout
    assert member.json("apps", "list") == {"apps": []}
    member.fal("account", "unset")
    assert f"'{user}'" in member.fal("auth", "whoami").stdout
    assert "Ignoring" not in member.fal("apps", "list", "--team", team).stdout
    refused = member.fal("apps", "list", "--team", "nobody", check=False)
    assert (refused.returncode != 0, "nobody not found" in refused.stdout) == (True, True), refused.stdout


@covers("completion")
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh"])
def test_completion(official: Official, shell: str) -> None:
    assert "fal" in official.fal("completion", shell).stdout


@covers("keys create", "keys list", "keys revoke")
@pytest.mark.parametrize(
    ("grant", "scope"),
    [
        (("--preset", "FULL"), "ADMIN"),
        (("--preset", "API"), "API"),
        (("--scope", "ADMIN"), "ADMIN"),
        (("--preset", "READONLY"), None),
    ],
)
def test_keys_are_made_listed_and_revoked(
    controller: Controller, official: Official, grant: tuple[str, ...], scope: str | None
) -> None:
    made = official.fal("keys", "create", *grant, "--desc", f"interop {scope}").stdout
    found = re.search(r"FAL_KEY='([^:']+):([^']+)'", made)
    assert found, made
    key_id = found[1]
    listed = {key["key_id"]: key for key in official.json("keys", "list")["keys"]}
    assert listed[key_id]["scope"] == scope
    assert listed[key_id]["description"] == f"interop {scope}"

    holder = Official(python=official.python, home=official.home, host=controller.host, key=f"{key_id}:{found[2]}")
    may = holder.fal("runners", "list", check=False)
    assert may.returncode == (1 if scope == "API" else 0)

    official.fal("keys", "revoke", key_id)
    refused = holder.fal("runners", "list", check=False)
    assert refused.returncode == 1
    assert key_id not in [key["key_id"] for key in official.json("keys", "list")["keys"]]


@covers("keys create --permission")
def test_a_key_of_chosen_permissions(controller: Controller, official: Official) -> None:
    made = official.fal("keys", "create", "--permission", "serverless:runners:read,serverless:apps:read").stdout
    found = re.search(r"FAL_KEY='([^']+)'", made)
    assert found, made
    holder = Official(python=official.python, home=official.home, host=controller.host, key=found[1])
    assert holder.fal("runners", "list").returncode == 0
    refused = holder.fal("secrets", "list", check=False)
    assert refused.returncode == 1
    assert "serverless:secrets:read" in refused.stdout
    unknown = official.fal("keys", "create", "--permission", "apps:read", check=False)
    assert unknown.returncode == 1
    assert "serverless:apps:read" in unknown.stdout


@covers("secrets set", "secrets list", "secrets unset")
def test_secrets_are_set_listed_and_unset(official: Official) -> None:
    official.fal("secrets", "set", "INTEROP_ONE=1", "INTEROP_TWO=a=b", "--not-exposed-by-default")
    listed = {secret["name"]: secret for secret in official.json("secrets", "list")["secrets"]}
    assert listed["INTEROP_ONE"]["environment"] == "main"
    assert listed["INTEROP_TWO"]["default_exposed"] is False
    assert "INTEROP_ONE" in official.fal("secrets", "list").stdout
    official.fal("secrets", "unset", "INTEROP_ONE")
    assert "INTEROP_ONE" not in json.dumps(official.json("secrets", "list"))


@covers("environments create", "environments list", "environments delete")
def test_environments_come_and_go(official: Official) -> None:
    assert "interop-env" in official.fal("environments", "create", "interop-env", "--description", "for tests").stdout
    listed = {item["name"]: item for item in official.json("environments", "list")["environments"]}
    assert listed["main"]["is_default"] is True
    assert listed["interop-env"]["description"] == "for tests"
    official.fal("secrets", "set", "ELSEWHERE=1", "--env", "interop-env")
    assert [s["environment"] for s in official.json("secrets", "list", "--env", "interop-env")["secrets"]] == [
        "interop-env"
    ]
    official.fal("secrets", "unset", "ELSEWHERE", "--env", "interop-env")
    assert "interop-env" in official.fal("environments", "delete", "interop-env", "--yes").stdout
    assert "interop-env" not in json.dumps(official.json("environments", "list"))


SDK = """
import json, sys
from fal.api import SyncServerlessClient
from fal.sdk import KeyScope
client = SyncServerlessClient()
key_id, secret = client.keys.create(scope=KeyScope.API, description="sdk")
scopes = [str(key.scope) for key in client.keys.list() if key.key_id == key_id]
client.keys.revoke(key_id)
client.secrets.set("SDK_SECRET", "value")
names = [secret.name for secret in client.secrets.list()]
client.secrets.unset("SDK_SECRET")
client.environments.create("sdk-env", description="made by the SDK")
environments = [environment.name for environment in client.environments.list()]
client.environments.delete("sdk-env")
print(json.dumps([scopes, "SDK_SECRET" in names, "sdk-env" in environments]))
"""


@covers("SyncServerlessClient().keys", "SyncServerlessClient().secrets", "SyncServerlessClient().environments")
def test_the_sdk_manages_the_account(official: Official) -> None:
    scopes, secret, environment = official.script(SDK)
    assert "API" in scopes[0]
    assert secret
    assert environment
