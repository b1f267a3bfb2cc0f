"""`client.keys`: the API keys."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING

from fal_grpc.adapter.key import KeyPreset, KeyScope, UserKeyInfo
from fal_grpc.documented import documented_by

if TYPE_CHECKING:
    from fal.api.aio.client import AsyncServerlessClient
    from fal.api.client import SyncServerlessClient


class KeysNamespace:
    """The API keys; `fal keys` on the command line. Reached as `client.keys`.

    Example:
        with SyncServerlessClient() as client:
            key_id, key_secret = client.keys.create(scope="api", description="the web shop")
    """

    def __init__(self, client: SyncServerlessClient) -> None:
        self.client = client

    def create(
        self,
        *,
        scope: KeyScope | str | None = None,
        preset: KeyPreset | str | None = None,
        permissions: builtins.list[str] | None = None,
        description: str | None = None,
    ) -> tuple[str, str]:
        """Make a key, by exactly one of scope, preset and permissions.

        Args:
            scope: `KeyScope.ADMIN` or "admin" to manage and call, `KeyScope.API` or "api" to call apps alone.
            preset: a `KeyPreset`, or its name.
            permissions: single permissions, such as ["serverless:apps:run"].
            description: a note that helps to tell keys apart.

        Returns:
            The key's id and its secret, which can never be read again.

        Raises:
            ArgumentError: not exactly one of the three is given, or a name is unknown. It is a ValueError.
        """
        made = self.client.controller().create_user_key(
            preset=preset, permissions=permissions, scope=scope, description=description
        )
        return made.key_id, made.key_secret

    def list(self) -> builtins.list[UserKeyInfo]:
        """The keys that are not revoked, without their secrets."""
        return self.client.controller().list_user_keys()

    def revoke(self, key_id: str) -> None:
        """End a key: no call is accepted with it any more."""
        self.client.controller().revoke_user_key(key_id)


@documented_by(KeysNamespace)
class AsyncKeysNamespace:
    """`KeysNamespace` for asyncio."""

    def __init__(self, client: AsyncServerlessClient) -> None:
        self.client = client

    async def create(
        self,
        *,
        scope: KeyScope | str | None = None,
        preset: KeyPreset | str | None = None,
        permissions: builtins.list[str] | None = None,
        description: str | None = None,
    ) -> tuple[str, str]:
        controller = await self.client.controller()
        made = await controller.create_user_key(
            preset=preset, permissions=permissions, scope=scope, description=description
        )
        return made.key_id, made.key_secret

    async def list(self) -> builtins.list[UserKeyInfo]:
        controller = await self.client.controller()
        return await controller.list_user_keys()

    async def revoke(self, key_id: str) -> None:
        controller = await self.client.controller()
        await controller.revoke_user_key(key_id)
