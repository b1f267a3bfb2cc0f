"""Deploying from asyncio programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

if TYPE_CHECKING:
    from fal.deploy import DeploymentResult, DeployOptions
    from fal.deploy.deployment_aio import AsyncClient


async def deploy(client: AsyncClient, app_ref: str | None = None, **options: Unpack[DeployOptions]) -> DeploymentResult:
    """`fal.deploy.deploy` for asyncio."""
    import fal.deploy

    _ = fal.deploy.deploy  # raises MissingExtraError if a package is missing
    from fal.deploy.deployment_aio import deploy

    return await deploy(client, app_ref, **options)
