"""The tokens that the controller gives out itself: for calls to some apps, for uploads, and for runners."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fal_server.access.permissions import WRITE_FILES
from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import LOCAL, Principal, Scope
from fal_server.ports import Clock, Store

CALLS, UPLOADS = "calls", "uploads"
LONGEST = timedelta(hours=1)
UPLOAD_LIFE = timedelta(hours=6)
_MOST_APPS = 100
_RUNNER = "runner."


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedToken:
    """A token and the moment from which it is worth nothing."""

    text: str
    expires_at: datetime


class Tokens:
    """Makes and checks tokens: JSON Web Tokens (RFC 7519) with HS256, so that nothing of them need be stored.

    A token is good only as long as the key that it was made with is.

    Args:
        secret: 32 bytes that only controllers on this state know.
        lives: whether a runner with this id has not ended.
    """

    def __init__(self, secret: bytes, store: Store, clock: Clock, lives: Callable[[str], bool]) -> None:
        self._secret = hmac.digest(secret, b"fal tokens", hashlib.sha256)
        self._store = store
        self._clock = clock
        self._lives = lives

    def for_calls(self, principal: Principal, apps: Sequence[str], seconds: float) -> IssuedToken:
        """A token that lets its bearer open WebSockets to these apps.

        Args:
            apps: their names, with or without the owner before a slash.
            seconds: how long it is good, at most an hour.

        Raises:
            Invalid: no app or too many, or a time that is none.
        """
        if not 0 < len(apps) <= _MOST_APPS:
            raise InvalidArgument("allowed_apps", f"allowed_apps has {len(apps)} names: give 1 to {_MOST_APPS}")
        if not 0 < seconds <= LONGEST.total_seconds():
            raise InvalidArgument(
                "token_expiration", f"token_expiration is {seconds:g}: give 1 to {LONGEST.total_seconds():g} seconds"
            )
        return self._issue(CALLS, principal.key_id, timedelta(seconds=seconds), {"apps": list(apps)})

    def for_uploads(self, principal: Principal) -> IssuedToken:
        """A token that lets its bearer upload files."""
        return self._issue(UPLOADS, principal.key_id, UPLOAD_LIFE, {})

    async def caller(self, token: str, owner: str, app: str) -> str | None:
        """The id of the key that a token for this app was made with; None where it is not good for that."""
        claims = self._claims(token, CALLS)
        if claims is None:
            return None
        allowed = claims.get("apps")
        if not isinstance(allowed, list) or not {app, f"{owner}/{app}"} & set(map(str, allowed)):
            return None
        return await self._holder(claims)

    async def uploader(self, token: str) -> Principal | None:
        """Return who uploads with this token or runner's key, permitted to write files; None if it is not valid."""
        if token.startswith(_RUNNER):
            runner_id, _, _ = token.removeprefix(_RUNNER).partition(":")
            good = hmac.compare_digest(self.runner_key(runner_id).encode(), token.encode(errors="surrogatepass"))
            return _uploader(runner_id) if good and self._lives(runner_id) else None
        claims = self._claims(token, UPLOADS)
        holder = None if claims is None else await self._holder(claims)
        return None if holder is None else _uploader(holder)

    def runner_key(self, runner_id: str) -> str:
        """What a runner shows to store files, in the form of a key: `id:secret`. It is worth nothing else."""
        word = hmac.digest(self._secret, b"runner\0" + runner_id.encode(errors="surrogatepass"), hashlib.sha256)
        return f"{_RUNNER}{runner_id}:{word.hex()}"

    async def _holder(self, claims: dict[str, object]) -> str | None:
        key = await self._store.get_key(str(claims.get("sub")))
        return key.key_id if key is not None and key.revoked_at is None else None

    def _issue(self, purpose: str, key_id: str, life: timedelta, more: dict[str, object]) -> IssuedToken:
        now = self._clock.now()
        expires_at = now + life
        claims = {"aud": purpose, "sub": key_id, "iat": int(now.timestamp()), "exp": expires_at.timestamp(), **more}
        signed = f"{_encoded({'alg': 'HS256', 'typ': 'JWT'})}.{_encoded(claims)}"
        return IssuedToken(text=f"{signed}.{self._signature(signed)}", expires_at=expires_at)

    def _signature(self, signed: str) -> str:
        return _text(hmac.digest(self._secret, signed.encode(errors="surrogatepass"), hashlib.sha256))

    def _claims(self, token: str, purpose: str) -> dict[str, object] | None:
        signed, dot, signature = token.rpartition(".")
        expected = self._signature(signed).encode()
        if not dot or not hmac.compare_digest(expected, signature.encode(errors="surrogatepass")):
            return None
        try:
            claims: object = json.loads(base64.urlsafe_b64decode(signed.partition(".")[2] + "=="))
        except (ValueError, binascii.Error):
            return None
        if not isinstance(claims, dict) or claims.get("aud") != purpose:
            return None
        expires = claims.get("exp")
        good = isinstance(expires, int | float) and expires > self._clock.now().timestamp()
        return claims if good else None


def _uploader(key_id: str) -> Principal:
    return Principal(key_id=key_id, scope=Scope(account=LOCAL, permissions=frozenset({WRITE_FILES})))


def _encoded(value: dict[str, object]) -> str:
    return _text(json.dumps(value, separators=(",", ":")).encode())


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
