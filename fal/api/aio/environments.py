"""`client.environments` for asyncio: separate sets of apps and secrets. Examples are "main" and "staging"."""

# The source of fal/api/environments.py: run `make gen` after a change.

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING

from fal_grpc.adapter.environment import EnvironmentInfo

if TYPE_CHECKING:
    from fal.api.opener import AsyncOpener


class AsyncEnvironmentsNamespace:
    """The environments; `fal environments` on the command line. Use it as `client.environments`.

    Example:
        async with AsyncServerlessClient() as client:
            await client.environments.create("staging", description="tried here before it goes live")
    """

    def __init__(self, client: AsyncOpener) -> None:
        self.client = client

    async def create(self, name: str, description: str | None = None) -> EnvironmentInfo:
        """Create an environment without apps or secrets.

        Args:
            name: lower-case letters, digits and hyphens.
            description: the environment's purpose.
        """
        controller = await self.client.controller()
        return await controller.create_environment(name, description=description)

    async def list(self) -> builtins.list[EnvironmentInfo]:
        """List all environments."""
        controller = await self.client.controller()
        return await controller.list_environments()

    async def delete(self, name: str) -> None:
        """Delete an environment and its secrets; it must have no apps."""
        controller = await self.client.controller()
        await controller.delete_environment(name)
