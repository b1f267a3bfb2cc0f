"""Resolves the team that a caller acts for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fal_grpc.credentials import TokenCredentials
from fal_grpc.errors import ConfigError

if TYPE_CHECKING:
    from fal.settings import Settings


def check_team(team: str, user: Mapping[str, object]) -> None:
    """Raise an error if a key would act for another account.

    Args:
        team: the nickname of an account.
        user: the controller's description of the key's account.

    Raises:
        ConfigError: the key belongs to another account; the message names it.
    """
    owner = str(user.get("nickname", ""))
    if owner.lower() != team.lower():
        raise ConfigError(
            f"The key belongs to {owner}, not to {team}, and a key acts for its own account alone. Use a key of "
            f"{team}, or a login token of one of its members (`fal auth token`)."
        )


def needs_team(settings: Settings) -> bool:
    """Return whether the team's user id must be looked up first."""
    return bool(settings.team) and isinstance(settings.credentials, TokenCredentials)


def for_team(settings: Settings, teams: Sequence[Mapping[str, object]]) -> Settings:
    """Return the settings with a login token that acts for their team.

    Args:
        settings: have a team and a login token.
        teams: the controller's description of the token user's teams.

    Raises:
        ConfigError: the team is not among them.
    """
    assert isinstance(settings.credentials, TokenCredentials)
    wanted = (settings.team or "").lower()
    for team in teams:
        user_id = team.get("user_id")
        if str(team.get("nickname", "")).lower() == wanted and isinstance(user_id, str):
            return replace(settings, credentials=replace(settings.credentials, user_id=user_id))
    known = ", ".join(sorted(str(team.get("nickname")) for team in teams)) or "none"
    raise ConfigError(f"Team {settings.team} not found. This login belongs to: {known}.")
