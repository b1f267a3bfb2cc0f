"""The controller's tokens for calls to some apps, uploads, and logging in."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fal_server.access.authentication import latest, principal_of
from fal_server.access.permissions import WRITE_FILES
from fal_server.access.runner_keys import RunnerKeys
from fal_server.core.accounts import Key
from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import EVERY_ACCOUNT, AccountId, AppId, Principal, Scope
from fal_server.ports import Clock, Store

CALLS, UPLOADS, LOGINS = "calls", "uploads", "logins"
LONGEST = timedelta(hours=1)
UPLOAD_LIFE = timedelta(hours=6)
LONGEST_LOGIN = timedelta(days=90)
_MOST_APPS = 100
_ALGORITHM = "HS256"


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedToken:
    """A token, and its expiry."""

    text: str
    expires_at: datetime


class Tokens:
    """Issues and checks JSON Web Tokens, none of which is stored. A token is valid only while its key is.

    Args:
        secret: 32 bytes that only controllers on this state know.
        account_of: returns the account of the runner with this id; None if it has ended.

    Attributes:
        runners: the keys of runners, which can be used for uploads, too.
    """

    def __init__(
        self, secret: bytes, store: Store, clock: Clock, account_of: Callable[[str], AccountId | None]
    ) -> None:
        self._secret = hmac.digest(secret, b"fal tokens", hashlib.sha256)
        self._store = store
        self._clock = clock
        self.runners = RunnerKeys(self._secret, account_of)

    def for_calls(self, principal: Principal, apps: Sequence[str], seconds: float) -> IssuedToken:
        """Return a token that lets its bearer open WebSockets to these apps.

        Args:
            apps: their names, with or without the owner and a slash.
            seconds: until it expires, at most an hour.

        Raises:
            InvalidArgument: there is no app, there are too many, or the time is out of range.
        """
        if not 0 < len(apps) <= _MOST_APPS:
            raise InvalidArgument("allowed_apps", f"allowed_apps has {len(apps)} names: give 1 to {_MOST_APPS}")
        if not 0 < seconds <= LONGEST.total_seconds():
            raise InvalidArgument(
                "token_expiration", f"token_expiration is {seconds:g}: give 1 to {LONGEST.total_seconds():g} seconds"
            )
        return self._issue(CALLS, principal.key_id, timedelta(seconds=seconds), {"apps": list(apps)})

    def for_uploads(self, principal: Principal) -> IssuedToken:
        """Return a token that lets its bearer upload files."""
        return self._issue(UPLOADS, principal.key_id, UPLOAD_LIFE, {})

    def for_login(self, principal: Principal, life: timedelta) -> IssuedToken:
        """Return a token that stands for the caller's key.

        Raises:
            InvalidArgument: the time is out of range.
        """
        if not timedelta() < life <= LONGEST_LOGIN:
            raise InvalidArgument("life", f"life is {life}: give more than 0, and at most {LONGEST_LOGIN.days} days")
        return self._issue(LOGINS, principal.key_id, life, {})

    async def login(self, token: str) -> Key | None:
        """Return the key of a login token. None if the token or its key is not valid."""
        claims = self._claims(token, LOGINS)
        return None if claims is None else await self._key_of(claims)

    async def caller(self, token: str, owner: str, app_id: AppId) -> str | None:
        """Return the id of the token's key. None if the token is not valid for this app.

        Args:
            owner: the name of the app's account.
        """
        claims = self._claims(token, CALLS)
        if claims is None:
            return None
        allowed = claims.get("apps")
        if not isinstance(allowed, list) or not {str(app_id), f"{owner}/{app_id}"} & set(map(str, allowed)):
            return None
        key_id = str(claims.get("sub"))
        if self.runners.names(key_id):
            account = self.runners.account_of(key_id)
        else:
            key = await self._key_of(claims)
            return key_id if key is not None and principal_of(key).scope.reaches(app_id) else None
        return key_id if account == app_id.account else None

    async def uploader(self, token: str) -> Principal | None:
        """Return the uploader with this token or runner's key. It may write files. None if the token is not valid."""
        if self.runners.names(token):
            key_id, _, secret = token.partition(":")
            runner = self.runners.caller(key_id, secret)
            return None if runner is None else _uploader(key_id, runner.scope.account)
        claims = self._claims(token, UPLOADS)
        key = None if claims is None else await self._key_of(claims)
        return None if key is None else _uploader(key.key_id, key.account)

    async def _key_of(self, claims: dict[str, object]) -> Key | None:
        key = await self._store.get_key(EVERY_ACCOUNT, str(claims.get("sub")))
        if key is None or key.revoked_at is not None:
            return None
        return None if key.has_expired(latest(self._clock)) else key

    def _issue(self, purpose: str, key_id: str, life: timedelta, more: dict[str, object]) -> IssuedToken:
        now = self._clock.now()
        claims = {"aud": purpose, "sub": key_id, "iat": int(now.timestamp()), "exp": (now + life).timestamp(), **more}
        import jwt  # see _claims

        text = jwt.encode(claims, self._secret, algorithm=_ALGORITHM)
        return IssuedToken(text=text, expires_at=self._clock.wall() + life)  # the bearer compares it with its own clock

    def _claims(self, token: str, purpose: str) -> dict[str, object] | None:
        # Here, because most starts see no token, and the library loads what reads certificates and asks over HTTP.
        import jwt

        try:
            claims: dict[str, object] = jwt.decode(
                token,
                self._secret,
                algorithms=[_ALGORITHM],
                audience=purpose,
                # The times are compared with our clock below, to the fraction of a second.
                options={"verify_exp": False, "verify_iat": False, "require": ["exp", "sub"]},
            )
        except (jwt.InvalidTokenError, ValueError, RecursionError):  # the header is parsed before it is authenticated
            return None
        expires = claims["exp"]
        return claims if isinstance(expires, int | float) and expires > self._clock.now().timestamp() else None


def _uploader(key_id: str, account: AccountId) -> Principal:
    return Principal(key_id=key_id, scope=Scope(account=account, permissions=frozenset({WRITE_FILES})))
