"""The Protocol of the store of log drains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Protocol

from fal_server.core.drains import DrainBatch, LogDrain, Unsent
from fal_server.core.identity import AccountId, Accounts


class DrainStore(Protocol):
    """Drains and how far each is. Each call is one transaction; its effect is durable when it returns.

    Every method raises Unavailable if the database cannot be used.
    """

    async def add(self, drain: LogDrain) -> bool:
        """Add a drain; False if the account has one of its name."""
        ...

    async def list(self, account: Accounts) -> Sequence[LogDrain]:
        """Return drains by account and name."""
        ...

    async def get(self, account: AccountId, name: str) -> LogDrain | None:
        """Return one drain, or None."""
        ...

    async def delete(self, account: AccountId, name: str) -> bool:
        """Delete a drain with its cursor; False if it does not exist."""
        ...

    async def pause(self, account: AccountId, name: str, paused: bool) -> bool:
        """Set whether a drain is paused; False if it does not exist."""
        ...

    async def behind(self, drain: LogDrain) -> frozenset[str]:
        """Return the runners with lines that a drain has not read. It looks at every runner that has lines."""
        ...

    async def next_batch(
        self, drain: LogDrain, runners: AbstractSet[str], read: Mapping[str, int], most_lines: int, most_bytes: int
    ) -> DrainBatch:
        """Return a drain's next lines of some runners, merged by time.

        Args:
            runners: whose lines to read.
            read: by runner, the last sequence that was read, where it is beyond the cursor.
            most_lines: at most so many are read.
            most_bytes: at most about so long are the messages together, unless one alone is longer.
        """
        ...

    async def advance(self, drain_id: str, reached: Mapping[str, int], sent_lines: int, at: datetime | None) -> None:
        """Move a drain's cursor; nothing happens if the drain is gone.

        Args:
            reached: by runner, the last sequence that was sent or skipped.
            sent_lines: how many lines the receiver took.
            at: when it took them; None if nothing was sent.
        """
        ...

    async def fail(self, drain_id: str, error: str, at: datetime) -> None:
        """Note why a delivery failed; nothing happens if the drain is gone."""
        ...

    async def unsent(self, drain: LogDrain, runners: AbstractSet[str]) -> Unsent:
        """Return what waits for a drain of some runners. These have lines that it has not read."""
        ...
