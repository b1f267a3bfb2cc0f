"""The client of the SDK."""

# Generated from fal/api/aio/client.py by scripts/gen_blocking.py; do not edit.

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from fal.api.connection import ClientConnection
from fal_grpc.adapter.values import optional_text

if TYPE_CHECKING:
    from fal.api.accounts import AccountsNamespace
    from fal.api.apps import AppsNamespace
    from fal.api.audit import AuditNamespace
    from fal.api.drains import DrainsNamespace
    from fal.api.environments import EnvironmentsNamespace
    from fal.api.keys import KeysNamespace
    from fal.api.notices import NoticesNamespace
    from fal.api.queue import QueueNamespace
    from fal.api.requests import RequestsNamespace
    from fal.api.runners import RunnersNamespace
    from fal.api.secrets import SecretsNamespace
    from fal.deploy import DeploymentResult, DeployOptions
    from fal.rest import Rest
    from fal.settings import Settings
    from fal_grpc.controller import Controller
    from fal_grpc.credentials import Credentials


@dataclass
class SyncServerlessClient:
    """Manages apps, runners, keys, secrets and environments, and deploys.

    The methods have the names of the commands. One client keeps one connection, which opens at the first call. Use it
    from several threads, and close it, or use `with`. Every call can raise
    `fal.exceptions.FalServerlessException`.

    Example:
        from fal.api import SyncServerlessClient

        with SyncServerlessClient() as client:
            for runner in client.runners.list():
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
        self._connection = ClientConnection(self.host, self.api_key, self.profile, self.team)
        self._opening = threading.Lock()
        self._opened: Controller | None = None

    # Each namespace is imported at first use: a command needs only one or two.

    @cached_property
    def accounts(self) -> AccountsNamespace:
        """`fal teams`."""
        from fal.api.accounts import AccountsNamespace

        return AccountsNamespace(self)

    @cached_property
    def apps(self) -> AppsNamespace:
        """`fal apps`."""
        from fal.api.apps import AppsNamespace

        return AppsNamespace(self)

    @cached_property
    def requests(self) -> RequestsNamespace:
        """`fal requests`."""
        from fal.api.requests import RequestsNamespace

        return RequestsNamespace(self)

    @cached_property
    def audit(self) -> AuditNamespace:
        """`fal audit`."""
        from fal.api.audit import AuditNamespace

        return AuditNamespace(self)

    @cached_property
    def drains(self) -> DrainsNamespace:
        """`fal drains`."""
        from fal.api.drains import DrainsNamespace

        return DrainsNamespace(self)

    @cached_property
    def notices(self) -> NoticesNamespace:
        """`fal notices`."""
        from fal.api.notices import NoticesNamespace

        return NoticesNamespace(self)

    @cached_property
    def runners(self) -> RunnersNamespace:
        """`fal runners`."""
        from fal.api.runners import RunnersNamespace

        return RunnersNamespace(self)

    @cached_property
    def keys(self) -> KeysNamespace:
        """`fal keys`."""
        from fal.api.keys import KeysNamespace

        return KeysNamespace(self)

    @cached_property
    def secrets(self) -> SecretsNamespace:
        """`fal secrets`."""
        from fal.api.secrets import SecretsNamespace

        return SecretsNamespace(self)

    @cached_property
    def environments(self) -> EnvironmentsNamespace:
        """`fal environments`."""
        from fal.api.environments import EnvironmentsNamespace

        return EnvironmentsNamespace(self)

    @cached_property
    def queue(self) -> QueueNamespace:
        """`fal queue`."""
        from fal.api.queue import QueueNamespace

        return QueueNamespace(self)

    def deploy(self, app_ref: str | None = None, **options: Unpack[DeployOptions]) -> DeploymentResult:
        """Deploy an app; `fal deploy` on the command line.

        Args:
            app_ref: "path/to/file.py", "path/to/file.py::MyApp", or the name of an app in pyproject.toml; None finds
                one as the command does.
            options: `app_name`, `auth`, `strategy`, `reset_scale`, `environment_name` and the other options of
                `fal.deploy.deploy`.

        Returns:
            The revision, and the addresses to call.
        """
        from fal.deploy import deploy

        return deploy(self, app_ref, **options)

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

    def controller(self) -> Controller:
        """Return the controller's rpcs, for calls that the namespaces do not cover."""
        with self._opening:
            settings = self._connection.ready()
            if self._opened is None:
                from fal_grpc.controller import Controller

                self._opened = Controller(settings.target, settings.credentials, settings.options)
            return self._opened

    def rest(self) -> Rest:
        """Return the HTTP side of the controller."""
        return self._connection.rest()

    def close(self) -> None:
        """Close the connection and cancel calls in flight. A second close does nothing."""
        self._connection.close()
        with self._opening:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
