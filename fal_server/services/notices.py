"""Notices: creates, lists, tests and deletes them. What may be a credential is sealed and never shown."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from email.message import EmailMessage
from urllib.parse import urlsplit

from fal_server.core.accounts import KnownAccounts
from fal_server.core.drains import Target
from fal_server.core.faults import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from fal_server.core.identity import EVERY_ACCOUNT, LOCAL, AccountId, Scope
from fal_server.core.names import app_name, split_app_name
from fal_server.core.notices import (
    Mailbox,
    Notice,
    NoticeForm,
    Problem,
    checked_mailbox,
    checked_notice_name,
    checked_target,
    checked_thresholds,
    document,
    headline,
    lines,
)
from fal_server.core.outbound import OutboundCall
from fal_server.live.events import ChangeNotifier
from fal_server.ports import Clock, Vault
from fal_server.ports.notices import MailClient, NoticeStore
from fal_server.ports.outbound import OutboundClient

MOST_NOTICES = 32
# What an app writes must not become a link or a call of everybody.
_SLACK = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeView:
    """A notice, and its problems."""

    notice: Notice
    problems: Sequence[Problem]


class Notices:
    """The use cases of notices.

    Attributes:
        changed: notified when a notice is created or deleted.
    """

    def __init__(
        self,
        store: NoticeStore,
        vault: Vault,
        client: OutboundClient,
        mail: MailClient,
        accounts: KnownAccounts,
        clock: Clock,
    ) -> None:
        self._store = store
        self._vault = vault
        self._client = client
        self._mail = mail
        self._accounts = accounts
        self._clock = clock
        self._creating = asyncio.Lock()
        self.changed = ChangeNotifier()

    async def create(
        self,
        scope: Scope,
        name: str,
        url: str,
        *,
        form: NoticeForm = NoticeForm.WEBHOOK,
        thresholds: Mapping[str, float] | None = None,
        apps: Sequence[str] = (),
        signing_key: str | None = None,
        to: Sequence[str] = (),
        sender: str | None = None,
        password: str | None = None,
    ) -> NoticeView:
        """Add a notice; see CreateNoticeRequest in protos/fal/v1/notice.proto.

        Raises:
            InvalidArgument: an argument is not valid, or the receiver may not be called.
            AlreadyExists: the account has a notice of this name.
            ResourceExhausted: the account has too many notices.
        """
        checked_notice_name(name)
        if form is NoticeForm.EMAIL:
            if signing_key is not None:
                raise InvalidArgument("signing_key", "signing_key is for webhooks: e-mail has no signature")
            receiver: Target | Mailbox = checked_mailbox(url, to, sender, password)
        else:
            if to or sender is not None or password is not None:
                raise InvalidArgument("to", "to, sender and password are for e-mail: leave them out, or use that form")
            if form is NoticeForm.SLACK and signing_key is not None:
                raise InvalidArgument("signing_key", "signing_key is for webhooks: Slack does not read a signature")
            receiver = checked_target(url, signing_key)
        chosen = checked_thresholds(thresholds or {}, of_controller=scope.account == LOCAL)
        named = [app_name(app, split_app_name(app)[1], f"apps[{place}]") for place, app in enumerate(apps)]
        host, port = _host(receiver)
        if reason := await self._client.why_forbidden(host, port):
            raise InvalidArgument("url", f"url: {reason}")
        notice_id = str(uuid.uuid4())
        notice = Notice(
            account=scope.account,
            notice_id=notice_id,
            name=name,
            form=form,
            receiver=", ".join(receiver.to) if isinstance(receiver, Mailbox) else host,
            thresholds=chosen,
            apps=tuple(dict.fromkeys(named)),
            signed=signing_key is not None,
            created_at=self._clock.now(),
            sealed=self._vault.seal(_context(notice_id), _sealed(receiver)),
        )
        async with self._creating:
            if len(await self._store.list(scope.account)) >= MOST_NOTICES:
                raise ResourceExhausted(f"there are {MOST_NOTICES} notices already: delete one that is not needed")
            if not await self._store.add(notice):
                raise AlreadyExists(f"notice {name!r} exists already: choose another name, or delete it first")
        self.changed.notify()
        return NoticeView(notice=notice, problems=())

    async def list(self, scope: Scope) -> Sequence[NoticeView]:
        """Return the notices of an account by name."""
        return [await self._view(notice) for notice in await self._store.list(scope.account)]

    async def get(self, scope: Scope, name: str) -> NoticeView:
        """Return one notice.

        Raises:
            NotFound: there is no such notice.
        """
        return await self._view(await self._find(scope, name))

    async def test(self, scope: Scope, name: str) -> None:
        """Send a test now, once.

        Raises:
            NotFound: there is no such notice.
            FailedPrecondition: the receiver did not take it.
        """
        notice = await self._find(scope, name)
        try:
            await self.send(notice, ())
        except OSError as error:
            problem = str(error) or type(error).__name__
            await self._store.fail(notice.notice_id, problem, self._clock.now())
            raise FailedPrecondition(f"notice {name!r} was not sent: {problem}") from error
        await self._store.told(notice.notice_id, (), self._clock.now())

    async def delete(self, scope: Scope, name: str) -> None:
        """Delete a notice.

        Raises:
            NotFound: there is no such notice.
        """
        if not await self._store.delete(scope.account, checked_notice_name(name)):
            raise _none(name)
        self.changed.notify()

    async def end_account(self, account: AccountId) -> None:
        """Delete all notices of an account; nothing more is sent for it."""
        for notice in await self._store.list(account):
            await self._store.delete(account, notice.name)
        self.changed.notify()

    async def every(self) -> Sequence[Notice]:
        """Return the notices of all accounts."""
        return await self._store.list(EVERY_ACCOUNT)

    async def send(self, notice: Notice, problems: Sequence[Problem]) -> None:
        """Tell a receiver of problems. Send a test if there are none.

        Raises:
            OSError: the receiver did not take it.
            Unavailable: what it needs was sealed with another master key, or is damaged.
        """
        account = self._accounts.of(notice.account).nickname
        receiver = self._receiver(notice)
        if isinstance(receiver, Mailbox):
            await self._mail.send(receiver, _mail(receiver, account, problems))
            return
        if notice.form is NoticeForm.SLACK:
            text = "\n".join([f"*{headline(account, problems)}*", *lines(problems)])
            content: dict[str, object] = {"text": text.translate(_SLACK)}
        else:
            content = document(notice.name, account, problems, self._clock.wall())
        body = json.dumps(content, separators=(",", ":")).encode()
        headers = (("content-type", "application/json"), *receiver.signature_headers(body))
        receipt = await self._client.post(OutboundCall(url=receiver.url, headers=headers, body=body))
        if not receipt.taken:
            raise OSError(f"the receiver answered {receipt.status}")

    def _receiver(self, notice: Notice) -> Target | Mailbox:
        fields = json.loads(self._vault.open(_context(notice.notice_id), notice.sealed))
        if notice.form is NoticeForm.EMAIL:
            fields["to"] = tuple(fields["to"])
            return Mailbox(**fields)
        return Target(**fields)

    async def _find(self, scope: Scope, name: str) -> Notice:
        notice = await self._store.get(scope.account, checked_notice_name(name))
        if notice is None:
            raise _none(name)
        return notice

    async def _view(self, notice: Notice) -> NoticeView:
        return NoticeView(notice=notice, problems=await self._store.problems(notice.notice_id))


def _host(receiver: Target | Mailbox) -> tuple[str, int]:
    if isinstance(receiver, Mailbox):
        return receiver.host, receiver.port
    parts = urlsplit(receiver.url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _mail(mailbox: Mailbox, account: str, problems: Sequence[Problem]) -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = " ".join(headline(account, problems).split())
    message["From"] = mailbox.sender
    message["To"] = ", ".join(mailbox.to)
    message.set_content("\n".join(lines(problems)) + "\n")
    return message


def _context(notice_id: str) -> str:
    return f"notice {notice_id}"


def _sealed(receiver: Target | Mailbox) -> str:
    return json.dumps(asdict(receiver))


def _none(name: str) -> NotFound:
    return NotFound(f"notice {name!r}", "`fal notices list` shows which exist")
