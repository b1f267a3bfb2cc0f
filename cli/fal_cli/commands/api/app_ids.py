"""Splits app ids. The parts are the path of a call and the app whose queue holds the requests."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fal_cli.exit_codes import CommandError, ExitCode

if TYPE_CHECKING:
    from fal.api import SyncServerlessClient

_NAMESPACES = ("workflows", "comfy")
_LEGACY = re.compile(r"(\d+)-(.+)")


def split_id(model_id: str, nickname: str | None) -> tuple[str, str]:
    """Split an app's id. The parts are the path of a call and the app whose queue holds the requests.

    Args:
        model_id: `owner/app`, optionally with a longer path; `app` alone belongs to the caller.
        nickname: the caller's nickname; needed for `app` alone.

    Raises:
        CommandError: the id is malformed.
    """
    parts = [part for part in model_id.strip("/").split("/") if part]
    if len(parts) == 1 and (legacy := _LEGACY.fullmatch(parts[0])):
        parts = [legacy[1], legacy[2]]
    elif len(parts) == 1 and nickname is not None:
        parts = [nickname, *parts]
    needed = 3 if parts and parts[0] in _NAMESPACES else 2
    if len(parts) < needed or any(character.isspace() or character in "?#" for character in model_id):
        raise CommandError(f"'{model_id}' is not the id of an app: write OWNER/APP or OWNER/APP/PATH", ExitCode.USAGE)
    return "/".join(parts), "/".join(parts[:needed])


def nickname_of(client: SyncServerlessClient) -> str | None:
    user = client.rest().ask("GET", "/users/current")
    found = user.get("nickname") if isinstance(user, dict) else None
    return found if isinstance(found, str) else None
