"""The keys of runners. Each has its own, for its app's calls, and it ends with the runner."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from fal_server.access.permissions import CALL_APPS
from fal_server.core.identity import AccountId, Principal, Scope

_PREFIX = "runner."


class RunnerKeys:
    """Derives and checks runners' keys. None is stored: a key is valid while its runner lives.

    A runner may call the account's apps, and store its app's files. It may manage nothing.

    Args:
        secret: 32 bytes that only controllers on this state know.
        account_of: returns the account of the runner with this id; None if it has ended.
    """

    def __init__(self, secret: bytes, account_of: Callable[[str], AccountId | None]) -> None:
        self._secret = secret
        self._account_of = account_of

    def key_of(self, runner_id: str) -> tuple[str, str]:
        """Return a runner's key as id and secret."""
        secret = hmac.digest(self._secret, b"runner " + runner_id.encode(errors="surrogatepass"), hashlib.sha256)
        return f"{_PREFIX}{runner_id}", secret.hex()

    @staticmethod
    def names(key_id: str) -> bool:
        """Return whether an id belongs to a runner's key. No other key has such an id."""
        return key_id.startswith(_PREFIX)

    def account_of(self, key_id: str) -> AccountId | None:
        """Return the account of this key's runner; None if it has ended."""
        return self._account_of(key_id.removeprefix(_PREFIX))

    def caller(self, key_id: str, secret: str) -> Principal | None:
        """Return the runner as a caller. None if the secret is wrong or the runner has ended."""
        runner_id = key_id.removeprefix(_PREFIX)
        expected = self.key_of(runner_id)[1].encode()
        good = hmac.compare_digest(expected, secret.encode(errors="surrogatepass"))
        account = self.account_of(key_id) if good else None
        if account is None:
            return None
        return Principal(key_id=key_id, scope=Scope(account=account, permissions=frozenset({CALL_APPS})))
