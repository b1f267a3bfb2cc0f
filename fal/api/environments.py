"""`client.environments`: the places, such as "main" and "staging", that apps and secrets are in."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING

from fal_grpc.adapter.environment import EnvironmentInfo
from fal_grpc.documented import documented_by

if TYPE_CHECKING:
    from fal.api.aio.client import AsyncServerlessClient
    from fal.api.client import SyncServerlessClient


class EnvironmentsNamespace:
    """The environments; `fal environments` on the command line. Reached as `client.environments`.

    Example:
        with SyncServerlessClient() as client:
            client.environments.create("staging", description="what is tried before it goes live")
    """

    def __init__(self, client: SyncServerlessClient) -> None:
        self.client = client

    def create(self, name: str, description: str | None = None) -> EnvironmentInfo:
        """Make an environment without apps or secrets.

        Args:
            name: lower-case letters, digits and hyphens.
            description: what it is for, in words.
        """
        return self.client.controller().create_environment(name, description=description)

    def list(self) -> builtins.list[EnvironmentInfo]:
        """All environments."""
        return self.client.controller().list_environments()

    def delete(self, name: str) -> None:
        """Delete an environment and the secrets in it; there must be no apps in it."""
        self.client.controller().delete_environment(name)


@documented_by(EnvironmentsNamespace)
class AsyncEnvironmentsNamespace:
    """`EnvironmentsNamespace` for asyncio."""

    def __init__(self, client: AsyncServerlessClient) -> None:
        self.client = client

    async def create(self, name: str, description: str | None = None) -> EnvironmentInfo:
        controller = await self.client.controller()
        return await controller.create_environment(name, description=description)

    async def list(self) -> builtins.list[EnvironmentInfo]:
        controller = await self.client.controller()
        return await controller.list_environments()

    async def delete(self, name: str) -> None:
        controller = await self.client.controller()
        await controller.delete_environment(name)
