"""Keys, secrets and environments, end to end over gRPC."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.json_format import MessageToDict

from fal_grpc.v1 import environment_pb2, key_pb2, secret_pb2
from fal_grpc.v1.environment_pb2_grpc import EnvironmentsStub
from fal_grpc.v1.key_pb2_grpc import KeysStub
from fal_grpc.v1.secret_pb2_grpc import SecretsStub
from fal_server.core.identity import LOCAL
from tests.grpc.conftest import Stack


async def refused(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_a_key_is_made_works_and_is_revoked(stack: Stack) -> None:
    keys = KeysStub(stack.channel)
    made = await keys.CreateUserKey(key_pb2.CreateUserKeyRequest(alias="ci"), metadata=stack.metadata)
    mine = (("auth-key-id", made.key_id), ("auth-key", made.key_secret))
    listed = await keys.ListUserKeys(key_pb2.ListUserKeysRequest(), metadata=mine)
    info = next(key for key in listed.user_keys if key.key_id == made.key_id)
    assert (info.alias, info.scope, info.created_at.seconds) == ("ci", key_pb2.CreateUserKeyRequest.ADMIN, 1772366400)
    assert made.key_secret not in str(listed)
    await keys.RevokeUserKey(key_pb2.RevokeUserKeyRequest(key_id=made.key_id), metadata=stack.metadata)
    error = await refused(keys.ListUserKeys(key_pb2.ListUserKeysRequest(), metadata=mine))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "revoked" in (error.details() or "")
    again = await refused(keys.RevokeUserKey(key_pb2.RevokeUserKeyRequest(key_id=made.key_id), metadata=stack.metadata))
    assert again.code() is grpc.StatusCode.NOT_FOUND


async def test_what_a_key_may_do_is_policy_then_preset_then_scope(stack: Stack) -> None:
    keys = KeysStub(stack.channel)
    policy = key_pb2.KeyPolicy(permissions=["serverless:logs:read"])
    scope = key_pb2.CreateUserKeyRequest.API
    made = [
        await keys.CreateUserKey(request, metadata=stack.metadata)
        for request in (
            key_pb2.CreateUserKeyRequest(policy=policy, policy_preset="FULL", scope=scope),
            key_pb2.CreateUserKeyRequest(policy_preset="full", scope=scope),
            key_pb2.CreateUserKeyRequest(scope=scope),
            key_pb2.CreateUserKeyRequest(),
        )
    ]
    stored = [await stack.store.get_key(LOCAL, key.key_id) for key in made]
    assert [key and key.permissions for key in stored] == [
        ("serverless:logs:read",),
        ("*",),
        ("serverless:apps:run",),
        ("*",),
    ]
    listed = await keys.ListUserKeys(key_pb2.ListUserKeysRequest(), metadata=stack.metadata)
    scopes = {key.key_id: key.scope for key in listed.user_keys}
    # A key that is neither ADMIN nor API has a number that readers treat as no scope.
    assert [scopes[key.key_id] for key in made] == [1000, 0, 1, 0]


async def test_a_key_gives_no_more_than_it_has(stack: Stack) -> None:
    keys = KeysStub(stack.channel)
    policy = key_pb2.KeyPolicy(permissions=["keys:write", "serverless:apps:*"])
    made = await keys.CreateUserKey(key_pb2.CreateUserKeyRequest(policy=policy), metadata=stack.metadata)
    mine = (("auth-key-id", made.key_id), ("auth-key", made.key_secret))
    await keys.CreateUserKey(key_pb2.CreateUserKeyRequest(policy_preset="API"), metadata=mine)
    error = await refused(keys.CreateUserKey(key_pb2.CreateUserKeyRequest(), metadata=mine))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_the_last_admin_key_stays(stack: Stack) -> None:
    keys = KeysStub(stack.channel)
    error = await refused(
        keys.RevokeUserKey(key_pb2.RevokeUserKeyRequest(key_id=stack.admin[0]), metadata=stack.metadata)
    )
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    other = await keys.CreateUserKey(key_pb2.CreateUserKeyRequest(), metadata=stack.metadata)
    # If another one exists, the key in use may be revoked.
    await keys.RevokeUserKey(key_pb2.RevokeUserKeyRequest(key_id=stack.admin[0]), metadata=stack.metadata)
    assert (await stack.access.authenticate(other.key_id, other.key_secret)).scope.permissions == {"*"}


async def test_a_secret_is_set_listed_and_unset(stack: Stack) -> None:
    secrets = SecretsStub(stack.channel)
    await secrets.SetSecret(
        secret_pb2.SetSecretRequest(name="TOKEN", value="geheim", default_exposed=False), metadata=stack.metadata
    )
    await secrets.SetSecret(secret_pb2.SetSecretRequest(name="EMPTY", value=""), metadata=stack.metadata)
    listed = await secrets.ListSecrets(secret_pb2.ListSecretsRequest(), metadata=stack.metadata)
    assert [MessageToDict(secret, preserving_proto_field_name=True) for secret in listed.secrets] == [
        {"name": "EMPTY", "created_time": "2026-03-01T12:00:00Z", "environment_name": "main"},
        {
            "name": "TOKEN",
            "created_time": "2026-03-01T12:00:00Z",
            "environment_name": "main",
            "default_exposed": False,
        },
    ]
    assert await stack.secrets.reveal_for(LOCAL, "main", None) == {"EMPTY": ""}
    assert await stack.secrets.reveal_for(LOCAL, "main", ["TOKEN"]) == {"TOKEN": "geheim"}
    await secrets.SetSecret(secret_pb2.SetSecretRequest(name="TOKEN"), metadata=stack.metadata)
    error = await refused(secrets.SetSecret(secret_pb2.SetSecretRequest(name="TOKEN"), metadata=stack.metadata))
    assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_environments_hold_secrets_and_apps_apart(stack: Stack) -> None:
    environments, secrets = EnvironmentsStub(stack.channel), SecretsStub(stack.channel)
    made = await environments.CreateEnvironment(
        environment_pb2.CreateEnvironmentRequest(name="staging", description="before"), metadata=stack.metadata
    )
    assert (made.environment.name, made.environment.description, made.environment.is_default) == (
        "staging",
        "before",
        False,
    )
    for environment in ("main", "staging"):
        await secrets.SetSecret(
            secret_pb2.SetSecretRequest(name="WHERE", value=environment, environment_name=environment),
            metadata=stack.metadata,
        )
    assert await stack.secrets.reveal_for(LOCAL, "staging", None) == {"WHERE": "staging"}
    listed = await environments.ListEnvironments(environment_pb2.ListEnvironmentsRequest(), metadata=stack.metadata)
    assert [(each.name, each.is_default) for each in listed.environments] == [("main", True), ("staging", False)]
    twice = await refused(
        environments.CreateEnvironment(
            environment_pb2.CreateEnvironmentRequest(name="staging"), metadata=stack.metadata
        )
    )
    assert twice.code() is grpc.StatusCode.ALREADY_EXISTS
    await environments.DeleteEnvironment(
        environment_pb2.DeleteEnvironmentRequest(name="staging"), metadata=stack.metadata
    )
    assert await stack.secrets.reveal_for(LOCAL, "staging", None) == {}
    for name, code in (("staging", grpc.StatusCode.NOT_FOUND), ("main", grpc.StatusCode.FAILED_PRECONDITION)):
        error = await refused(
            environments.DeleteEnvironment(environment_pb2.DeleteEnvironmentRequest(name=name), metadata=stack.metadata)
        )
        assert error.code() is code
