"""`client.keys` for asyncio: the API keys."""

# The source of fal/api/keys.py: run `make gen` after a change.

from __future__ import annotations

import builtins
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from fal_grpc.adapter.key import Caller, KeyPreset, KeyScope, LoginToken, UserKeyInfo

if TYPE_CHECKING:
    from fal.api.opener import AsyncOpener


class AsyncKeysNamespace:
    """The API keys; `fal keys` on the command line. Use it as `client.keys`.

    Example:
        async with AsyncServerlessClient() as client:
            key_id, key_secret = await client.keys.create(scope="api", description="the web shop")
    """

    def __init__(self, client: AsyncOpener) -> None:
        self.client = client

    async def create(
        self,
        *,
        scope: KeyScope | str | None = None,
        preset: KeyPreset | str | None = None,
        permissions: builtins.list[str] | None = None,
        description: str | None = None,
        expires_at: datetime | None = None,
        for_app: str | None = None,
        environment_name: str | None = None,
    ) -> tuple[str, str]:
        """Create a key from exactly one of scope, preset and permissions.

        Args:
            scope: `KeyScope.ADMIN` or "admin" to manage and call, `KeyScope.API` or "api" only to call apps.
            preset: a `KeyPreset`, or its name.
            permissions: single permissions, for example ["serverless:apps:run"].
            description: a note that helps to tell keys apart.
            expires_at: when it expires; a naive one is local time. None means never.
            for_app: restrict the key to this app: it gets those of the requested permissions that apply to one app.
            None
                means no restriction.
            environment_name: the app's environment; without `for_app`, the environment to restrict the key to.

        Returns:
            The key's id and its secret, which cannot be read again.

        Raises:
            ArgumentError: not exactly one of the three is given, or a name is unknown. It is a ValueError.
        """
        controller = await self.client.controller()
        created = await controller.create_user_key(
            preset=preset,
            permissions=permissions,
            scope=scope,
            description=description,
            expires_at=expires_at,
            for_app=for_app,
            environment_name=environment_name,
        )
        return created.key_id, created.key_secret

    async def list(self) -> builtins.list[UserKeyInfo]:
        """List the keys that are not revoked, without their secrets."""
        controller = await self.client.controller()
        return await controller.list_user_keys()

    async def whoami(self) -> Caller:
        """Return the caller: the key in use, its account and its permissions.

        Raises:
            UnimplementedError: the controller does not support it; ours does.
        """
        controller = await self.client.controller()
        return await controller.get_caller()

    async def login_token(self, life: timedelta = timedelta(days=30)) -> LoginToken:
        """Create a token that stands for the key in use. It may act for the teams of the key's account.

        Args:
            life: how long it is valid, at most 90 days; it also ends with the key.

        Raises:
            ArgumentError: the time is not valid. It is a ValueError.
            UnimplementedError: the controller does not support it; ours does.
        """
        controller = await self.client.controller()
        return await controller.create_login_token(life)

    async def rotate(self, key_id: str, *, overlap: timedelta = timedelta(hours=24)) -> tuple[str, str]:
        """Replace a key with one that has the same permissions. The old one expires after the overlap.

        If the old key had an expiry, the new one gets the same lifetime, counted from now.

        Args:
            overlap: how long the old key still works, at most 90 days; with 0 it ends at once.

        Returns:
            The new key's id and its secret, which cannot be read again.

        Raises:
            ArgumentError: the id or the overlap is not valid. It is a ValueError.
        """
        controller = await self.client.controller()
        created = await controller.rotate_user_key(key_id, overlap)
        return created.key_id, created.key_secret

    async def revoke(self, key_id: str) -> None:
        """Revoke a key. The controller accepts no more calls with it, and ends those in flight."""
        controller = await self.client.controller()
        await controller.revoke_user_key(key_id)
