"""Deploying from asyncio programs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Unpack

if TYPE_CHECKING:
    from fal.api.aio.client import AsyncServerlessClient
    from fal.deploy import DeploymentResult, DeployOptions


async def deploy(
    client: AsyncServerlessClient, app_ref: str | None = None, **options: Unpack[DeployOptions]
) -> DeploymentResult:
    """`fal.deploy.deploy` in a thread: loading an app file runs its code, and hashing files reads them."""

    def blocking() -> DeploymentResult:
        from fal.api.client import SyncServerlessClient

        with SyncServerlessClient(client.host, client.api_key, client.profile, client.team) as other:
            return other.deploy(app_ref, **options)

    return await asyncio.to_thread(blocking)
