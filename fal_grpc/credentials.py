"""Who is calling: a key or a login token, and the metadata and headers that carry it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from fal_grpc.errors import ConfigError


@dataclass(frozen=True, slots=True)
class KeyCredentials:
    """A key: an id, which may be shown, and a secret, which is never."""

    key_id: str
    secret: str = field(repr=False)

    @classmethod
    def parse(cls, text: str, *, source: str) -> KeyCredentials:
        """A key from "id:secret"; the secret may itself contain colons.

        Args:
            text: the key.
            source: where it was found, for the error.

        Raises:
            ConfigError: it has another form. The text itself is not repeated, since it may be a secret.
        """
        key_id, colon, secret = text.strip().partition(":")
        if not colon or not key_id or not secret:
            raise ConfigError(f"{source} must be in 'KEY_ID:KEY_SECRET' format; `fal keys create` prints such a key")
        if not text.isascii() or not text.strip().isprintable():
            raise ConfigError(f"{source} has characters that no key has; copy it anew")
        return cls(key_id, secret)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with each gRPC call."""
        return (("auth-key", self.secret), ("auth-key-id", self.key_id))

    def headers(self) -> dict[str, str]:
        """What goes with each HTTP request."""
        return {"Authorization": f"Key {self.key_id}:{self.secret}"}


@dataclass(frozen=True, slots=True)
class TokenCredentials:
    """A login token, and the user id of the team to act for; None acts for the person."""

    token: str = field(repr=False)
    user_id: str | None = None

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with each gRPC call."""
        team = () if self.user_id is None else (("fal-user-id", self.user_id),)
        return (("authorization", f"Bearer {self.token}"), *team)

    def headers(self) -> dict[str, str]:
        """What goes with each HTTP request."""
        team = {} if self.user_id is None else {"X-Fal-User-Id": self.user_id}
        return {"Authorization": f"Bearer {self.token}", **team}


@dataclass(frozen=True, slots=True)
class NoCredentials:
    """No credentials at all, for a controller that asks for none."""

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Nothing goes with a gRPC call."""
        return ()

    def headers(self) -> dict[str, str]:
        """Nothing goes with an HTTP request."""
        return {}


Credentials: TypeAlias = KeyCredentials | TokenCredentials | NoCredentials
