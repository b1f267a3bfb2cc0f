"""The client of the SDK for asyncio."""

# The source of fal/api/client.py: run `make gen` after a change.

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from fal.api.aio.connection import AsyncClientConnection
from fal_grpc.adapter.values import optional_text

if TYPE_CHECKING:
    from fal.api.aio.accounts import AsyncAccountsNamespace
    from fal.api.aio.apps import AsyncAppsNamespace
    from fal.api.aio.audit import AsyncAuditNamespace
    from fal.api.aio.drains import AsyncDrainsNamespace
    from fal.api.aio.environments import AsyncEnvironmentsNamespace
    from fal.api.aio.keys import AsyncKeysNamespace
    from fal.api.aio.notices import AsyncNoticesNamespace
    from fal.api.aio.queue import AsyncQueueNamespace
    from fal.api.aio.requests import AsyncRequestsNamespace
    from fal.api.aio.runners import AsyncRunnersNamespace
    from fal.api.aio.secrets import AsyncSecretsNamespace
    from fal.deploy import DeploymentResult, DeployOptions
    from fal.rest_aio import AsyncRest
    from fal.settings import Settings
    from fal_grpc.aio import AsyncController
    from fal_grpc.credentials import Credentials


@dataclass
class AsyncServerlessClient:
    """Manages apps, runners, keys, secrets and environments, and deploys, for asyncio.

    The methods have the names of the commands. One client keeps one connection, which opens at the first call. Use it
    within one event loop, and close it, or use `async with`. Every call can raise
    `fal.exceptions.FalServerlessException`.

    Example:
        from fal.api import AsyncServerlessClient

        async with AsyncServerlessClient() as client:
            for runner in await client.runners.list():
                print(runner.runner_id, runner.state)

    Args:
        host: the controller, as host or host:port; None takes FAL_GRPC_HOST, FAL_HOST or the profile's.
        api_key: "KEY_ID:KEY_SECRET"; None takes FAL_KEY or the profile's.
        profile: the profile of ~/.fal/config.toml to use; None takes FAL_PROFILE or the current one.
        team: the team to act for, with a login token; a key acts for its own account alone.
    """

    host: str | None = None
    api_key: str | None = field(default=None, repr=False)
    profile: str | None = None
    team: str | None = None

    def __post_init__(self) -> None:
        for name in ("host", "api_key", "profile", "team"):
            optional_text(name, getattr(self, name))
        self._connection = AsyncClientConnection(self.host, self.api_key, self.profile, self.team)
        self._opening = asyncio.Lock()
        self._opened: AsyncController | None = None

    # Each namespace is imported at first use: a command needs only one or two.

    @cached_property
    def accounts(self) -> AsyncAccountsNamespace:
        """`fal teams`."""
        from fal.api.aio.accounts import AsyncAccountsNamespace

        return AsyncAccountsNamespace(self)

    @cached_property
    def apps(self) -> AsyncAppsNamespace:
        """`fal apps`."""
        from fal.api.aio.apps import AsyncAppsNamespace

        return AsyncAppsNamespace(self)

    @cached_property
    def requests(self) -> AsyncRequestsNamespace:
        """`fal requests`."""
        from fal.api.aio.requests import AsyncRequestsNamespace

        return AsyncRequestsNamespace(self)

    @cached_property
    def audit(self) -> AsyncAuditNamespace:
        """`fal audit`."""
        from fal.api.aio.audit import AsyncAuditNamespace

        return AsyncAuditNamespace(self)

    @cached_property
    def drains(self) -> AsyncDrainsNamespace:
        """`fal drains`."""
        from fal.api.aio.drains import AsyncDrainsNamespace

        return AsyncDrainsNamespace(self)

    @cached_property
    def notices(self) -> AsyncNoticesNamespace:
        """`fal notices`."""
        from fal.api.aio.notices import AsyncNoticesNamespace

        return AsyncNoticesNamespace(self)

    @cached_property
    def runners(self) -> AsyncRunnersNamespace:
        """`fal runners`."""
        from fal.api.aio.runners import AsyncRunnersNamespace

        return AsyncRunnersNamespace(self)

    @cached_property
    def keys(self) -> AsyncKeysNamespace:
        """`fal keys`."""
        from fal.api.aio.keys import AsyncKeysNamespace

        return AsyncKeysNamespace(self)

    @cached_property
    def secrets(self) -> AsyncSecretsNamespace:
        """`fal secrets`."""
        from fal.api.aio.secrets import AsyncSecretsNamespace

        return AsyncSecretsNamespace(self)

    @cached_property
    def environments(self) -> AsyncEnvironmentsNamespace:
        """`fal environments`."""
        from fal.api.aio.environments import AsyncEnvironmentsNamespace

        return AsyncEnvironmentsNamespace(self)

    @cached_property
    def queue(self) -> AsyncQueueNamespace:
        """`fal queue`."""
        from fal.api.aio.queue import AsyncQueueNamespace

        return AsyncQueueNamespace(self)

    async def deploy(self, app_ref: str | None = None, **options: Unpack[DeployOptions]) -> DeploymentResult:
        """Deploy an app; `fal deploy` on the command line.

        Args:
            app_ref: "path/to/file.py", "path/to/file.py::MyApp", or the name of an app in pyproject.toml; None finds
                one as the command does.
            options: `app_name`, `auth`, `strategy`, `reset_scale`, `environment_name` and the other options of
                `fal.deploy.deploy`.

        Returns:
            The revision, and the addresses to call.
        """
        from fal.deploy.aio import deploy

        return await deploy(self, app_ref, **options)

    @property
    def settings(self) -> Settings:
        """The controller and credentials of this client, and the source of each."""
        return self._connection.settings

    @property
    def _credentials(self) -> Credentials:
        return self._connection.credentials

    @property
    def _grpc_host(self) -> str:
        return self._connection.settings.target.authority

    @property
    def _rest_url(self) -> str:
        return self._connection.settings.rest_url

    async def controller(self) -> AsyncController:
        """Return the controller's rpcs, for calls that the namespaces do not cover."""
        async with self._opening:
            settings = await self._connection.ready()
            if self._opened is None:
                from fal_grpc.aio import AsyncController

                self._opened = AsyncController(settings.target, settings.credentials, settings.options)
            return self._opened

    async def rest(self) -> AsyncRest:
        """Return the HTTP side of the controller."""
        return await self._connection.rest()

    async def close(self) -> None:
        """Close the connection and cancel calls in flight. A second close does nothing."""
        self._connection.close()
        async with self._opening:
            opened, self._opened = self._opened, None
        if opened is not None:
            await opened.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
