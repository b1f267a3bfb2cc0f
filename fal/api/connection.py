"""Resolves a client's controller and credentials once, at first use."""

# Generated from fal/api/aio/connection.py by scripts/gen_blocking.py; do not edit.

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING

from fal.api.team import check_team, for_team, needs_team
from fal.settings import Settings, resolve
from fal_grpc.credentials import KeyCredentials
from fal_grpc.errors import ClientClosedError

if TYPE_CHECKING:
    from fal.rest import Rest
    from fal_grpc.credentials import Credentials


class ClientConnection:
    """The settings of a client, resolved once, and whether it is closed."""

    def __init__(self, host: str | None, api_key: str | None, profile: str | None, team: str | None) -> None:
        self._host = host
        self._api_key = api_key
        self._profile = profile
        self._team = team
        self._lock = threading.Lock()
        self._ready: Settings | None = None
        self._closed = False

    @cached_property
    def settings(self) -> Settings:
        """The settings from arguments, environment and profile. Reading them makes no call."""
        return resolve(host=self._host, api_key=self._api_key, profile=self._profile, team=self._team)

    @property
    def credentials(self) -> Credentials:
        """The credentials for calls. A property cannot await, so looking up the team blocks here."""
        self._check_open()
        if self._ready is not None or not needs_team(self.settings):
            return (self._ready or self.settings).credentials
        from fal.rest import Rest

        settings = self.settings
        rest = Rest(settings.rest_url, settings.credentials, settings.options, account_url=settings.account_url)
        return for_team(settings, rest.teams()).credentials

    def ready(self) -> Settings:
        """Return the settings for calls. In them, a login token acts for the team.

        Raises:
            ClientClosedError: `close` was called.
            ConfigError: the team is unknown, or the key belongs to another account.
        """
        with self._lock:
            self._check_open()
            if self._ready is None:
                settings = self.settings
                if self._team and isinstance(settings.credentials, KeyCredentials):
                    check_team(self._team, _rest(settings).user())
                self._ready = for_team(settings, _rest(settings).teams()) if needs_team(settings) else settings
            return self._ready

    def rest(self) -> Rest:
        """Return the HTTP side of the controller. Raises the errors of `ready`."""
        return _rest(self.ready())

    def close(self) -> None:
        """Reject further calls."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosedError("This client is closed. Make a new one, or make its calls inside the `with` block.")


def _rest(settings: Settings) -> Rest:
    from fal.rest import Rest

    return Rest(settings.rest_url, settings.credentials, settings.options, account_url=settings.account_url)
