"""`client.secrets`: values that runners get as environment variables."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING

from fal_grpc.adapter.secret import ServerlessSecret
from fal_grpc.documented import documented_by

if TYPE_CHECKING:
    from fal.api.aio.client import AsyncServerlessClient
    from fal.api.client import SyncServerlessClient


class SecretsNamespace:
    """The secrets of an environment; `fal secrets` on the command line. Reached as `client.secrets`.

    Example:
        with SyncServerlessClient() as client:
            client.secrets.set("API_TOKEN", "my-secret-value")
            print([secret.name for secret in client.secrets.list()])
    """

    def __init__(self, client: SyncServerlessClient) -> None:
        self.client = client

    def set(
        self, name: str, value: str, environment_name: str | None = None, default_exposed: bool | None = None
    ) -> None:
        """Write a secret. Runners that start from then on get it.

        Args:
            name: its name, and that of the environment variable.
            value: the text; an empty one is a value like any other.
            environment_name: the environment; None means the default one.
            default_exposed: whether apps that name no secrets get it; None leaves that to the account's default.
        """
        self.client.controller().set_secret(
            name, value, environment_name=environment_name, default_exposed=default_exposed
        )

    def list(self, environment_name: str | None = None) -> builtins.list[ServerlessSecret]:
        """The secrets, without their values, which cannot be read back."""
        return self.client.controller().list_secrets(environment_name=environment_name)

    def unset(self, name: str, environment_name: str | None = None) -> None:
        """Delete a secret."""
        self.client.controller().unset_secret(name, environment_name=environment_name)


@documented_by(SecretsNamespace)
class AsyncSecretsNamespace:
    """`SecretsNamespace` for asyncio."""

    def __init__(self, client: AsyncServerlessClient) -> None:
        self.client = client

    async def set(
        self, name: str, value: str, environment_name: str | None = None, default_exposed: bool | None = None
    ) -> None:
        controller = await self.client.controller()
        await controller.set_secret(name, value, environment_name=environment_name, default_exposed=default_exposed)

    async def list(self, environment_name: str | None = None) -> builtins.list[ServerlessSecret]:
        controller = await self.client.controller()
        return await controller.list_secrets(environment_name=environment_name)

    async def unset(self, name: str, environment_name: str | None = None) -> None:
        controller = await self.client.controller()
        await controller.unset_secret(name, environment_name=environment_name)
