"""Records each permitted change of a caller before it is made."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from functools import partial

from fal_server.core.audit import AuditEntry, AuditRow, first_break, following
from fal_server.core.identity import Principal
from fal_server.ports import Clock
from fal_server.ports.audit import AuditStore

_PAGE = 500
_LONGEST = 500


class Recorder:
    """Writes the audit log. A change that it cannot record is refused, because its fault reaches the caller.

    Args:
        secret: 32 bytes that only controllers on this state know, so that nobody else can forge a row.
    """

    def __init__(self, store: AuditStore, clock: Clock, secret: bytes) -> None:
        self._store = store
        self._clock = clock
        self._secret = hmac.digest(secret, b"fal audit", hashlib.sha256)

    async def record(
        self, caller: Principal, action: str, target: str, *, source: str = "", request_id: str = ""
    ) -> None:
        """Add a row, durably.

        Raises:
            Unavailable: it cannot be written, so the change must not be made.
        """
        entry = AuditEntry(
            account=caller.scope.account,
            at=self._clock.wall(),
            key_id=caller.key_id,
            action=action,
            target=_shown(target),
            source=source,
            request_id=request_id,
        )
        await self._store.append(entry.account, partial(following, self._secret, entry=entry))

    async def verify(self, caller: Principal) -> tuple[int, int | None]:
        """Check the chain of the caller's account.

        Returns:
            The number of rows, and the number of the first that was changed or is missing; None if all is well.
        """
        before: AuditRow | None = None
        while rows := await self._next(caller, before):
            broken = first_break(self._secret, before, rows)
            if broken is not None:
                return (0 if before is None else before.sequence) + len(rows), broken
            before = rows[-1]
        return (0 if before is None else before.sequence), None

    async def _next(self, caller: Principal, before: AuditRow | None) -> Sequence[AuditRow]:
        # A gap shows because the first row after it does not have the next number.
        first = 1 if before is None else before.sequence + 1
        return await self._store.from_number(caller.scope.account, first, _PAGE)


def _shown(target: str) -> str:
    clean = "".join(character if character.isprintable() else "?" for character in target)
    return clean if len(clean) <= _LONGEST else clean[: _LONGEST - 3] + "..."
