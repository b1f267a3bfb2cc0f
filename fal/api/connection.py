"""What the two clients have in common: arguments, settings decided when first needed, and the team of a login token."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from fal.settings import Settings, resolve
from fal_grpc.credentials import KeyCredentials, TokenCredentials
from fal_grpc.errors import ClientClosedError, ConfigError

if TYPE_CHECKING:
    from fal.rest import Rest


class Connection:
    """Decides whom to call and as whom, once, and whether that is still allowed. Usable from several threads."""

    def __init__(self, host: str | None, api_key: str | None, profile: str | None, team: str | None) -> None:
        self._host = host
        self._api_key = api_key
        self._profile = profile
        self._team = team
        self._lock = threading.RLock()
        self._settings: Settings | None = None
        self._ready: Settings | None = None
        self._closed = False

    @property
    def settings(self) -> Settings:
        """What arguments, environment and profile say. Nothing is asked of anybody for it."""
        with self._lock:
            if self._settings is None:
                self._settings = resolve(host=self._host, api_key=self._api_key, profile=self._profile, team=self._team)
            return self._settings

    @property
    def needs_lookup(self) -> bool:
        """Whether `ready` will make a request that blocks."""
        settings = self.settings
        return self._ready is None and bool(settings.team) and isinstance(settings.credentials, TokenCredentials)

    def ready(self) -> Settings:
        """The settings to make calls with: a login token acts for the team by then.

        Raises:
            ClientClosedError: `close` was called.
            ConfigError: the team is unknown.
        """
        with self._lock:
            if self._closed:
                raise ClientClosedError(
                    "This client is closed. Make a new one, or make its calls inside the `with` block."
                )
            if self._ready is None:
                self._ready = self._with_team(self.settings)
            return self._ready

    def rest(self) -> Rest:
        """The HTTP side of the controller."""
        return _rest(self.ready())

    def close(self) -> None:
        """Allow no more calls."""
        with self._lock:
            self._closed = True

    def _with_team(self, settings: Settings) -> Settings:
        if not settings.team:
            return settings
        if isinstance(settings.credentials, KeyCredentials):
            if self._team:
                import logging

                logging.getLogger("fal").warning(
                    "Team %s is ignored: a key decides by itself whose things are meant.", self._team
                )
            return settings
        if not isinstance(settings.credentials, TokenCredentials):
            return settings
        teams = _rest(settings).teams()
        for team in teams:
            user_id = team.get("user_id")
            if str(team.get("nickname", "")).lower() == settings.team.lower() and isinstance(user_id, str):
                return replace(settings, credentials=replace(settings.credentials, user_id=user_id))
        known = ", ".join(sorted(str(team.get("nickname")) for team in teams)) or "none"
        raise ConfigError(f"Team {settings.team} not found. This login belongs to: {known}.")


def _rest(settings: Settings) -> Rest:
    from fal.rest import Rest

    return Rest(settings.rest_url, settings.credentials, settings.options, account_url=settings.account_url)
