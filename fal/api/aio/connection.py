"""Resolves a client's controller and credentials once, at first use, for asyncio."""

# The source of fal/api/connection.py: run `make gen` after a change.

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import TYPE_CHECKING

from fal.api.team import check_team, for_team, needs_team
from fal.settings import Settings, resolve
from fal_grpc.credentials import KeyCredentials
from fal_grpc.errors import ClientClosedError

if TYPE_CHECKING:
    from fal.rest_aio import AsyncRest
    from fal_grpc.credentials import Credentials


class AsyncClientConnection:
    """The settings of a client, resolved once, and whether it is closed."""

    def __init__(self, host: str | None, api_key: str | None, profile: str | None, team: str | None) -> None:
        self._host = host
        self._api_key = api_key
        self._profile = profile
        self._team = team
        self._lock = asyncio.Lock()
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

    async def ready(self) -> Settings:
        """Return the settings for calls. In them, a login token acts for the team.

        Raises:
            ClientClosedError: `close` was called.
            ConfigError: the team is unknown, or the key belongs to another account.
        """
        async with self._lock:
            self._check_open()
            if self._ready is None:
                settings = self.settings
                if self._team and isinstance(settings.credentials, KeyCredentials):
                    check_team(self._team, await _rest(settings).user())
                self._ready = for_team(settings, await _rest(settings).teams()) if needs_team(settings) else settings
            return self._ready

    async def rest(self) -> AsyncRest:
        """Return the HTTP side of the controller. Raises the errors of `ready`."""
        return _rest(await self.ready())

    def close(self) -> None:
        """Reject further calls."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosedError("This client is closed. Make a new one, or make its calls inside the `with` block.")


def _rest(settings: Settings) -> AsyncRest:
    from fal.rest_aio import AsyncRest

    return AsyncRest(settings.rest_url, settings.credentials, settings.options, account_url=settings.account_url)
