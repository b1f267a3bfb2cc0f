"""`client.secrets` for asyncio: values that runners get as environment variables."""

# The source of fal/api/secrets.py: run `make gen` after a change.

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING

from fal_grpc.adapter.secret import ServerlessSecret

if TYPE_CHECKING:
    from fal.api.opener import AsyncOpener


class AsyncSecretsNamespace:
    """The secrets of an environment; `fal secrets` on the command line. Use it as `client.secrets`.

    Example:
        async with AsyncServerlessClient() as client:
            await client.secrets.set("API_TOKEN", "my-secret-value")
            print([secret.name for secret in await client.secrets.list()])
    """

    def __init__(self, client: AsyncOpener) -> None:
        self.client = client

    async def set(
        self, name: str, value: str, environment_name: str | None = None, default_exposed: bool | None = None
    ) -> None:
        """Write a secret. Runners that start later get it.

        Args:
            name: the name of the secret and of the environment variable.
            value: the text; it may be empty.
            environment_name: the environment; None means the default one.
            default_exposed: whether apps that name no secrets get it; None means the account's default.
        """
        controller = await self.client.controller()
        await controller.set_secret(name, value, environment_name=environment_name, default_exposed=default_exposed)

    async def list(self, environment_name: str | None = None) -> builtins.list[ServerlessSecret]:
        """List the secrets without their values, which cannot be read back."""
        controller = await self.client.controller()
        return await controller.list_secrets(environment_name=environment_name)

    async def unset(self, name: str, environment_name: str | None = None) -> None:
        """Delete a secret."""
        controller = await self.client.controller()
        await controller.unset_secret(name, environment_name=environment_name)
