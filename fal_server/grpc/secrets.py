"""Handlers for secrets; values never leave the controller."""

from __future__ import annotations

from fal_grpc.v1 import secret_pb2 as pb
from fal_server.grpc.caller import Caller
from fal_server.grpc.convert import timestamp
from fal_server.services.secrets import Secrets


class SecretHandlers:
    """fal.v1.Secrets."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    async def set_secret(self, request: pb.SetSecretRequest, caller: Caller) -> pb.SetSecretResponse:
        """Set a secret, or delete it if there is no value."""
        if request.HasField("value"):
            await self._secrets.set(
                caller.scope,
                request.name,
                request.value,
                environment=request.environment_name,
                default_exposed=request.default_exposed if request.HasField("default_exposed") else None,
            )
        else:
            await self._secrets.unset(caller.scope, request.name, environment=request.environment_name)
        return pb.SetSecretResponse()

    async def list_secrets(self, request: pb.ListSecretsRequest, caller: Caller) -> pb.ListSecretsResponse:
        return pb.ListSecretsResponse(
            secrets=[
                pb.Secret(
                    name=secret.name,
                    created_time=timestamp(secret.created_at),
                    environment_name=secret.environment,
                    default_exposed=secret.default_exposed,
                )
                for secret in await self._secrets.list(caller.scope, request.environment_name)
            ]
        )
