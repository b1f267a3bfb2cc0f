"""AsyncServerlessClient: the SDK's front door for programs with asyncio."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from fal.api.aio.apps import AsyncAppsNamespace
from fal.api.aio.runners import AsyncRunnersNamespace
from fal.api.client import SyncServerlessClient
from fal.api.connection import Connection
from fal.api.environments import AsyncEnvironmentsNamespace
from fal.api.keys import AsyncKeysNamespace
from fal.api.queue import AsyncQueueNamespace
from fal.api.secrets import AsyncSecretsNamespace
from fal_grpc.documented import documented_by

if TYPE_CHECKING:
    from fal.deploy import DeploymentResult, DeployOptions
    from fal.rest import Rest
    from fal.settings import Settings
    from fal_grpc.aio import AsyncController
    from fal_grpc.credentials import Credentials


@documented_by(SyncServerlessClient)
@dataclass
class AsyncServerlessClient:
    """`SyncServerlessClient` for asyncio: the same names, to await. It belongs to the event loop of its first call.

    Example:
        async with AsyncServerlessClient() as client:
            for runner in await client.runners.list():
                print(runner.runner_id, runner.state.value)
    """

    host: str | None = None
    api_key: str | None = field(default=None, repr=False)
    profile: str | None = None
    team: str | None = None

    def __post_init__(self) -> None:
        self._connection = Connection(self.host, self.api_key, self.profile, self.team)
        self._opened: AsyncController | None = None

    @cached_property
    def apps(self) -> AsyncAppsNamespace:
        """`fal apps`."""
        return AsyncAppsNamespace(self)

    @cached_property
    def runners(self) -> AsyncRunnersNamespace:
        """`fal runners`."""
        return AsyncRunnersNamespace(self)

    @cached_property
    def keys(self) -> AsyncKeysNamespace:
        """`fal keys`."""
        return AsyncKeysNamespace(self)

    @cached_property
    def secrets(self) -> AsyncSecretsNamespace:
        """`fal secrets`."""
        return AsyncSecretsNamespace(self)

    @cached_property
    def environments(self) -> AsyncEnvironmentsNamespace:
        """`fal environments`."""
        return AsyncEnvironmentsNamespace(self)

    @cached_property
    def queue(self) -> AsyncQueueNamespace:
        """`fal queue`."""
        return AsyncQueueNamespace(self)

    async def deploy(self, app_ref: str | None = None, **options: Unpack[DeployOptions]) -> DeploymentResult:
        def blocking() -> DeploymentResult:
            # Loading an app file runs its code, and hashing files reads them: both belong in a thread.
            with SyncServerlessClient(self.host, self.api_key, self.profile, self.team) as client:
                return client.deploy(app_ref, **options)

        return await asyncio.to_thread(blocking)

    @property
    def settings(self) -> Settings:
        return self._connection.settings

    @property
    def _credentials(self) -> Credentials:
        return self._connection.ready().credentials

    @property
    def _grpc_host(self) -> str:
        return self._connection.settings.target.authority

    @property
    def _rest_url(self) -> str:
        return self._connection.settings.rest_url

    async def controller(self) -> AsyncController:
        if self._connection.needs_lookup:
            await asyncio.to_thread(self._connection.ready)
        settings = self._connection.ready()
        if self._opened is None:
            from fal_grpc.aio import AsyncController

            self._opened = AsyncController(settings.target, settings.credentials, settings.options)
        return self._opened

    def rest(self) -> Rest:
        return self._connection.rest()

    async def close(self) -> None:
        self._connection.close()
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
