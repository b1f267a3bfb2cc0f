"""Credentials: a key or a login token, with its metadata and headers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from fal_grpc.errors import ConfigError


@dataclass(frozen=True, slots=True)
class KeyCredentials:
    """A key. Its id may be shown, but its secret may not."""

    key_id: str
    secret: str = field(repr=False)

    @classmethod
    def parse(cls, text: str, *, source: str) -> KeyCredentials:
        """Parse "id:secret"; the secret may contain colons.

        Args:
            text: the key.
            source: the setting that the text comes from, for the error.

        Raises:
            ConfigError: it is malformed. The error does not show the text, because it may be a secret.
        """
        key_id, colon, secret = text.strip().partition(":")
        if not colon or not key_id or not secret:
            raise ConfigError(f"{source} must be in 'KEY_ID:KEY_SECRET' format; `fal keys create` prints such a key")
        if not text.isascii() or not text.strip().isprintable():
            raise ConfigError(f"{source} has characters that no key has; copy it again")
        return cls(key_id, secret)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of each gRPC call."""
        return (("auth-key", self.secret), ("auth-key-id", self.key_id))

    def headers(self) -> dict[str, str]:
        """Return the headers of each HTTP request."""
        return {"Authorization": f"Key {self.key_id}:{self.secret}"}


@dataclass(frozen=True, slots=True)
class TokenCredentials:
    """A login token, and the user id of a team. It acts for the team, or for the user if that is None."""

    token: str = field(repr=False)
    user_id: str | None = None

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of each gRPC call."""
        team = () if self.user_id is None else (("fal-user-id", self.user_id),)
        return (("authorization", f"Bearer {self.token}"), *team)

    def headers(self) -> dict[str, str]:
        """Return the headers of each HTTP request."""
        team = {} if self.user_id is None else {"X-Fal-User-Id": self.user_id}
        return {"Authorization": f"Bearer {self.token}", **team}


@dataclass(frozen=True, slots=True)
class NoCredentials:
    """No credentials, for a controller that needs none."""

    def metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    def headers(self) -> dict[str, str]:
        return {}


Credentials: TypeAlias = KeyCredentials | TokenCredentials | NoCredentials
