"""The Protocols of notices: their store, what is read for problems, e-mail."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from email.message import EmailMessage
from typing import Protocol

from fal_server.core.identity import AccountId, Accounts
from fal_server.core.notices import Mailbox, Notice, Problem


class NoticeStore(Protocol):
    """Notices and the problems of each. Each call is one transaction; its effect is durable when it returns.

    Every method raises Unavailable if the database cannot be used.
    """

    async def add(self, notice: Notice) -> bool:
        """Add a notice; False if the account has one of its name."""
        ...

    async def list(self, account: Accounts) -> Sequence[Notice]:
        """Return notices by account and name."""
        ...

    async def get(self, account: AccountId, name: str) -> Notice | None:
        """Return one notice, or None."""
        ...

    async def delete(self, account: AccountId, name: str) -> bool:
        """Delete a notice with its problems; False if it does not exist."""
        ...

    async def problems(self, notice_id: str) -> Sequence[Problem]:
        """Return the problems of a notice, oldest first."""
        ...

    async def save(self, notice_id: str, problems: Sequence[Problem]) -> None:
        """Add problems or replace those with the same key. It does nothing if the notice is gone."""
        ...

    async def told(self, notice_id: str, problems: Sequence[Problem], at: datetime) -> None:
        """Note that the receiver was told of problems. Those that ended are forgotten."""
        ...

    async def fail(self, notice_id: str, error: str, at: datetime) -> None:
        """Note why a try failed; nothing happens if the notice is gone."""
        ...


class MailClient(Protocol):
    """Sends e-mail."""

    async def send(self, mailbox: Mailbox, message: EmailMessage) -> None:
        """Hand a message to the server.

        Raises:
            OSError: the server may not be called, cannot be reached, or did not take the message.
        """
        ...


class ControllerHealth(Protocol):
    """What is known of the controller's machine."""

    async def disk_used_percent(self) -> float:
        """Return how much of the state directory's disk is used.

        Raises:
            OSError: it cannot be asked.
        """
        ...

    def lost_nodes(self) -> Sequence[str]:
        """Return the names of the further machines that do not answer now."""
        ...

    def certificate_ends_at(self) -> datetime | None:
        """Return when the listener's certificate ends; None without TLS."""
        ...
