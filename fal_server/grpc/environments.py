"""Handlers for environments."""

from __future__ import annotations

from fal_grpc.v1 import environment_pb2 as pb
from fal_server.core.accounts import Environment
from fal_server.grpc.caller import Caller
from fal_server.grpc.convert import timestamp
from fal_server.services.environments import Environments


class EnvironmentHandlers:
    """fal.v1.Environments."""

    def __init__(self, environments: Environments) -> None:
        self._environments = environments

    async def list_environments(
        self, request: pb.ListEnvironmentsRequest, caller: Caller
    ) -> pb.ListEnvironmentsResponse:
        return pb.ListEnvironmentsResponse(
            environments=[_info(each) for each in await self._environments.list(caller.scope)]
        )

    async def create_environment(
        self, request: pb.CreateEnvironmentRequest, caller: Caller
    ) -> pb.CreateEnvironmentResponse:
        created = await self._environments.create(
            caller.scope, request.name, request.description if request.HasField("description") else None
        )
        return pb.CreateEnvironmentResponse(environment=_info(created))

    async def delete_environment(
        self, request: pb.DeleteEnvironmentRequest, caller: Caller
    ) -> pb.DeleteEnvironmentResponse:
        await self._environments.delete(caller.scope, request.name)
        return pb.DeleteEnvironmentResponse()


def _info(environment: Environment) -> pb.EnvironmentInfo:
    return pb.EnvironmentInfo(
        name=environment.name,
        description=environment.description,
        is_default=environment.is_default,
        created_at=timestamp(environment.created_at),
    )
