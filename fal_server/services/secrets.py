"""Secrets: a value is sealed, stored, given to runners, and never shown."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from fal_server.core.accounts import SealedSecret
from fal_server.core.faults import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from fal_server.core.identity import LOCAL, AccountId, Scope
from fal_server.core.names import secret_name
from fal_server.live.catalog import existing_environment
from fal_server.ports import Clock, Store, Vault

MOST_SECRETS = 1000
MOST_VALUE_BYTES = 64 * 1024


class Secrets:
    """The use cases of secrets."""

    def __init__(self, store: Store, vault: Vault, clock: Clock) -> None:
        self._store = store
        self._vault = vault
        self._clock = clock
        self._changes = asyncio.Lock()

    async def set(
        self,
        scope: Scope,
        name: str,
        value: str,
        *,
        environment: str | None = None,
        default_exposed: bool | None = None,
    ) -> None:
        """Create or replace a secret.

        Args:
            value: at most 64 KiB in UTF-8; may be empty.
            environment: None means `main`.
            default_exposed: whether runners whose code names no secrets get it; None means yes.

        Raises:
            InvalidArgument: the name or the value is not valid for an environment variable.
            NotFound: there is no such environment.
            ResourceExhausted: the environment has too many secrets.
        """
        secret_name(name)
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise InvalidArgument("value", f"the value of secret {name} is not valid Unicode text") from None
        if size > MOST_VALUE_BYTES:
            raise InvalidArgument(
                "value", f"the value of secret {name} has {size} bytes: use at most {MOST_VALUE_BYTES}"
            )
        if "\0" in value:
            raise InvalidArgument(
                "value", f"the value of secret {name} contains a NUL character, which no environment variable can"
            )
        where = await existing_environment(self._store, scope.account, environment)
        sealed = SealedSecret(
            account=scope.account,
            environment=where,
            name=name,
            sealed=self._vault.seal(_context(scope.account, where, name), value),
            created_at=self._clock.now(),
            default_exposed=default_exposed,
        )
        async with self._changes:
            names = {secret.name for secret in await self._store.list_secrets(scope.account, where)}
            if name not in names and len(names) >= MOST_SECRETS:
                raise ResourceExhausted(
                    f"environment {where!r} has {MOST_SECRETS} secrets already: unset one that is not needed"
                )
            await self._store.save_secret(sealed)

    async def unset(self, scope: Scope, name: str, *, environment: str | None = None) -> None:
        """Delete a secret.

        Raises:
            InvalidArgument: it is not a valid name.
            NotFound: there is no such environment, or no such secret in it.
        """
        secret_name(name)
        where = await existing_environment(self._store, scope.account, environment)
        if not await self._store.delete_secret(scope.account, where, name):
            raise NotFound(f"secret {name} of environment {where!r}", "`fal secrets list` shows the names")

    async def list(self, scope: Scope, environment: str | None = None) -> Sequence[SealedSecret]:
        """Return the secrets of an environment by name, still sealed.

        Raises:
            InvalidArgument: it is not a valid environment name.
            NotFound: there is no such environment.
        """
        where = await existing_environment(self._store, scope.account, environment)
        return await self._store.list_secrets(scope.account, where)

    async def reveal_for(self, account: AccountId, environment: str, names: Iterable[str] | None) -> dict[str, str]:
        """Return the secrets of a new runner as variables.

        Args:
            environment: the app's environment.
            names: the secrets that the code names; None means all that are exposed by default.

        Raises:
            FailedPrecondition: a secret that the code names is not set.
            Unavailable: the secrets were sealed with another master key.
        """
        existing = {secret.name: secret for secret in await self._store.list_secrets(account, environment)}
        if names is None:
            wanted = [secret for secret in existing.values() if secret.default_exposed is not False]
        else:
            named = list(dict.fromkeys(names))
            missing = [name for name in named if name not in existing]
            if missing:
                raise FailedPrecondition(
                    f"the code asks for secrets that environment {environment!r} lacks: {', '.join(missing)}; "
                    "set them with `fal secrets set`"
                )
            wanted = [existing[name] for name in named]
        return {
            secret.name: self._vault.open(_context(account, environment, secret.name), secret.sealed)
            for secret in wanted
        }


def _context(account: AccountId, environment: str, name: str) -> str:
    """Return a secret's identity. A sealed value moved to another name cannot be decrypted.

    No part contains a slash. The first account is left out, because its secrets are older than accounts.
    """
    return f"{environment}/{name}" if account == LOCAL else f"{account}/{environment}/{name}"
