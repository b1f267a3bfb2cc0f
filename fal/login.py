"""Reads the login token that the published client's `fal auth login` stores. The token is never refreshed."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

from fal_grpc.errors import ConfigError, MissingCredentialsError

MARGIN_SECONDS = 30 * 60
"""Seconds before its expiry from which a token is no longer used."""


def access_token(home: Path, *, now: float | None = None) -> str | None:
    """Return the access token: the second line of the file `auth0_token`.

    Args:
        home: the directory of the file.
        now: seconds since 1970; None means the current time.

    Returns:
        The token, or None if nobody has logged in.

    Raises:
        MissingCredentialsError: the token has expired or will expire within half an hour.
        ConfigError: the file cannot be read or contains no token.
    """
    path = home / "auth0_token"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{path} cannot be read; set FAL_KEY, or log in again") from None
    token = lines[1].strip() if len(lines) > 1 else ""
    if not token:
        raise MissingCredentialsError(f"{path} has no access token. Log in again, or set FAL_KEY to a key.")
    expires_at = _expiry(token, path)
    if expires_at < (time.time() if now is None else now) + MARGIN_SECONDS:
        raise MissingCredentialsError(f"The login token in {path} has expired. Log in again, or set FAL_KEY to a key.")
    return token


def _expiry(token: str, path: Path) -> float:
    """Return a JWT's expiry. The controller checks its signature."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except (IndexError, KeyError, TypeError, ValueError):
        raise ConfigError(f"{path} holds no login token in its second line. Log in again, or set FAL_KEY.") from None
