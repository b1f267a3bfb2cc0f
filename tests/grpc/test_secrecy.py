"""Secrets appear nowhere. Logs, answers and the files of the database have none."""

from __future__ import annotations

import logging
from pathlib import Path

import grpc
import pytest

from fal_grpc.v1 import key_pb2, run_pb2, secret_pb2
from fal_grpc.v1.key_pb2_grpc import KeysStub
from fal_grpc.v1.run_pb2_grpc import RunsStub
from fal_grpc.v1.secret_pb2_grpc import SecretsStub
from fal_server.core.identity import LOCAL
from fal_server.services.environments import Environments
from fal_server.services.keys import Keys
from fal_server.services.secrets import Secrets
from fal_server.store import AesVault, open_store
from tests.fakes.domain import SCOPE
from tests.grpc.conftest import Stack

VALUE = "a-value-that-nobody-may-see"
OLD = "the-value-that-it-had-before"


def everything(record: logging.LogRecord) -> str:
    return f"{record.getMessage()} {record.__dict__!r} {logging.Formatter().format(record)}"


async def test_nothing_secret_is_logged_or_answered(stack: Stack, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    secrets, keys = SecretsStub(stack.channel), KeysStub(stack.channel)
    answers = [
        await secrets.SetSecret(secret_pb2.SetSecretRequest(name="A", value=VALUE), metadata=stack.metadata),
        await secrets.ListSecrets(secret_pb2.ListSecretsRequest(), metadata=stack.metadata),
    ]
    made = await keys.CreateUserKey(key_pb2.CreateUserKeyRequest(), metadata=stack.metadata)
    answers.append(await keys.ListUserKeys(key_pb2.ListUserKeysRequest(), metadata=stack.metadata))
    refusals = []
    for request in (
        secret_pb2.SetSecretRequest(name="0", value=VALUE),
        secret_pb2.SetSecretRequest(name="A", value=VALUE, environment_name="nowhere"),
        secret_pb2.SetSecretRequest(name="A", value=VALUE + "\0"),
        secret_pb2.SetSecretRequest(name="A", value=VALUE * 10_000),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await secrets.SetSecret(request, metadata=stack.metadata)
        refusals.append(caught.value)

    # After an unexpected failure the request is not in the traceback either.
    async def fail() -> None:
        raise ZeroDivisionError

    stack.runs.steps = [fail]
    function = run_pb2.SerializedObject(method="json", definition=VALUE.encode())
    with pytest.raises(grpc.aio.AioRpcError):
        await RunsStub(stack.channel).Run(run_pb2.HostedRun(function=function), metadata=stack.metadata).read()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await keys.ListUserKeys(
            key_pb2.ListUserKeysRequest(), metadata=(("auth-key-id", stack.admin[0]), ("auth-key", VALUE))
        )
    refusals.append(caught.value)
    written = "\n".join(everything(record) for record in caplog.records)
    shown = "\n".join([*map(str, answers), *map(str, refusals), *(str(r.trailing_metadata()) for r in refusals)])
    assert "SetSecret OK" in written
    assert "ZeroDivisionError" in written
    for word in (VALUE, stack.admin[1], stack.api[1], made.key_secret):
        assert word not in written
        assert word not in shown


async def test_nothing_secret_is_in_the_files(tmp_path: Path, stack: Stack) -> None:
    vault = AesVault(bytes(range(32)))
    store = await open_store(tmp_path / "state.db", vault)
    await Environments(store, stack.clock).bootstrap(LOCAL)
    secrets = Secrets(store, vault, stack.clock)
    for value in (OLD, VALUE):
        await secrets.set(SCOPE, "A", value)
    await secrets.set(SCOPE, "GONE", VALUE)
    await secrets.unset(SCOPE, "GONE")
    made = [await Keys(store, stack.clock, stack.access).create(None) for _ in range(3)]

    def files() -> bytes:
        return b"".join(path.read_bytes() for path in sorted(tmp_path.iterdir()))

    open_files = files()
    await store.close()
    for content in (open_files, files()):
        assert made[0][0].encode() in content  # the id is there, so these are the right files
        for word in (VALUE, OLD, *(secret for _, secret in made)):
            assert word.encode() not in content
