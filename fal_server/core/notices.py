"""Notices: who is told of which problems, and when."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from urllib.parse import unquote, urlsplit

from fal_server.core.drains import Target
from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import AccountId
from fal_server.core.outbound import checked_url

REMIND_AFTER = timedelta(hours=4)
"""How often a receiver is told of a problem that lasts."""
QUIET = timedelta(minutes=5)
"""How long a problem must be absent to have ended, so that one that comes and goes floods nobody."""
RECENT = timedelta(minutes=10)
"""How long what happened at one time, such as a lack of memory, counts as a problem."""
LEAST_REQUESTS = 20
"""Shares of fewer requests say nothing."""
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_ADDRESS = re.compile(r"[^\s<>,;:\"()\[\]\\@]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*")
_MOST_RECEIVERS = 20
_MOST_PASSWORD = 1024
_SHOWN = 20


class NoticeCondition(StrEnum):
    """What may be wrong."""

    STARTUP_FAILURE = "startup-failure"
    STARTUP_TIMEOUT = "startup-timeout"
    OUT_OF_MEMORY = "out-of-memory"
    QUEUE_SIZE = "queue-size"
    ERROR_SHARE = "error-share"
    NODE_LOST = "node-lost"
    DISK_FULL = "disk-full"
    CERTIFICATE = "certificate"


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdRange:
    """The thresholds that a condition may have.

    Attributes:
        usual: the threshold if none is given.
        below: whether values at or below the threshold are the problem.
        of_controller: whether only the first account may be told.
    """

    usual: float
    least: float
    most: float
    below: bool = False
    of_controller: bool = False


LIMITS: Mapping[NoticeCondition, ThresholdRange] = {
    NoticeCondition.STARTUP_FAILURE: ThresholdRange(usual=1, least=1, most=1000),
    NoticeCondition.STARTUP_TIMEOUT: ThresholdRange(usual=1, least=1, most=1000),
    NoticeCondition.OUT_OF_MEMORY: ThresholdRange(usual=1, least=1, most=1000),
    NoticeCondition.QUEUE_SIZE: ThresholdRange(usual=100, least=1, most=1_000_000_000),
    NoticeCondition.ERROR_SHARE: ThresholdRange(usual=5, least=0.1, most=100),
    NoticeCondition.NODE_LOST: ThresholdRange(usual=1, least=1, most=1, of_controller=True),
    NoticeCondition.DISK_FULL: ThresholdRange(usual=90, least=1, most=100, of_controller=True),
    NoticeCondition.CERTIFICATE: ThresholdRange(usual=14, least=1, most=365, below=True, of_controller=True),
}


class NoticeForm(StrEnum):
    """How a receiver is told."""

    WEBHOOK = "webhook"
    SLACK = "slack"
    EMAIL = "email"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailbox:
    """What e-mail needs; stored sealed.

    Attributes:
        host, port: of the server.
        encrypted: whether the connection begins with TLS; otherwise STARTTLS is asked for.
        user, password: to log in with; None does not.
        sender, to: addresses.
    """

    host: str
    port: int
    encrypted: bool
    user: str | None
    password: str | None = field(repr=False)
    sender: str
    to: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A value that a condition has now.

    Attributes:
        subject: the app, the machine, or `controller`.
        detail: for people.
    """

    condition: NoticeCondition
    subject: str
    value: float
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A problem of which a notice tells.

    Attributes:
        told_at: when the receiver was last told; None if it does not know.
        missing_since: since when it is absent; it may come back.
        ended_at: when it ended; the receiver does not know yet.
    """

    condition: NoticeCondition
    subject: str
    value: float
    detail: str
    began_at: datetime
    told_at: datetime | None = None
    missing_since: datetime | None = None
    ended_at: datetime | None = None

    @property
    def key(self) -> tuple[NoticeCondition, str]:
        """What no other problem of the notice has."""
        return self.condition, self.subject

    def due(self, now: datetime) -> bool:
        """Return whether the receiver has to be told."""
        return self.told_at is None or self.ended_at is not None or now - self.told_at >= REMIND_AFTER


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Who is told of what.

    Attributes:
        notice_id: unlike the name it is never used again.
        receiver: the host that is called or the addresses, without what may be a credential.
        thresholds: of each condition that it tells of.
        apps: only problems of these apps, by their full names; empty means all.
        last_error: why the last try failed; None if it did not.
    """

    account: AccountId
    notice_id: str
    name: str
    form: NoticeForm
    receiver: str
    thresholds: Mapping[NoticeCondition, float]
    apps: tuple[str, ...] = ()
    signed: bool = False
    created_at: datetime
    sealed: bytes = field(repr=False)
    last_sent_at: datetime | None = None
    last_error: str | None = None
    last_error_at: datetime | None = None

    def is_problem(self, reading: Reading) -> bool:
        """Return whether it tells of this value."""
        threshold, limits = self.thresholds.get(reading.condition), LIMITS[reading.condition]
        if threshold is None or (self.apps and not limits.of_controller and reading.subject not in self.apps):
            return False
        return reading.value <= threshold if limits.below else reading.value >= threshold


def compared(notice: Notice, known: Iterable[Problem], readings: Iterable[Reading], now: datetime) -> list[Problem]:
    """Return the problems of a notice that are new or have changed."""
    before = {problem.key: problem for problem in known}
    present = {(each.condition, each.subject): each for each in readings if notice.is_problem(each)}
    changed: list[Problem] = []
    for key, reading in present.items():
        problem = before.get(key)
        if problem is None:
            began = Problem(
                condition=reading.condition,
                subject=reading.subject,
                value=reading.value,
                detail=reading.detail,
                began_at=now,
            )
            changed.append(began)
        elif problem.missing_since is not None or problem.due(now):
            latest = replace(problem, value=reading.value, detail=reading.detail, missing_since=None, ended_at=None)
            if latest != problem:
                changed.append(latest)
    for key in before.keys() - present.keys():
        problem = before[key]
        if problem.missing_since is None:
            changed.append(replace(problem, missing_since=now))
        elif problem.ended_at is None and now - problem.missing_since >= QUIET:
            changed.append(replace(problem, ended_at=problem.missing_since))
    return changed


def document(name: str, account: str, problems: Sequence[Problem], now: datetime) -> dict[str, object]:
    """Return what a webhook gets, for JSON. Without problems it is a test."""
    return {
        "notice": name,
        "account": account,
        "test": not problems,
        "sent_at": _iso(now),
        "problems": [
            {
                "state": _state(problem),
                "condition": problem.condition.value,
                "subject": problem.subject,
                "value": problem.value,
                "detail": problem.detail,
                "began_at": _iso(problem.began_at),
                "ended_at": None if problem.ended_at is None else _iso(problem.ended_at),
            }
            for problem in problems
        ],
    }


def headline(account: str, problems: Sequence[Problem]) -> str:
    """Return one line for people; without problems it is a test."""
    if not problems:
        return f"fal: a test notice of {account}"
    new, over = (sum((problem.ended_at is None) is lasts for problem in problems) for lasts in (True, False))
    parts = [f"{count} {word}" for count, word in ((new, "firing"), (over, "resolved")) if count]
    if len(problems) == 1:
        return f"fal: {_state(problems[0])}: {problems[0].condition.value} of {problems[0].subject}"
    return f"fal: {', '.join(parts)} in {account}"


def lines(problems: Sequence[Problem]) -> list[str]:
    """Return a line for each problem, for people. Of many, only the first ones have one."""
    if not problems:
        return ["This is a test. Problems will be told here."]
    shown = [f"{_state(each)}: {each.condition.value} of {each.subject}: {each.detail}" for each in problems[:_SHOWN]]
    more = len(problems) - _SHOWN
    return [*shown, f"and {more} more"] if more > 0 else shown


def checked_notice_name(name: str) -> str:
    """Check the name of a notice.

    Raises:
        InvalidArgument: it is not 1 to 64 lower-case letters, digits and inner hyphens.
    """
    if not _NAME.fullmatch(name):
        raise InvalidArgument("name", f"name {name[:80]!r} is not a notice's name: use 1 to 64 of a-z, 0-9 and hyphens")
    return name


def checked_thresholds(given: Mapping[str, float], *, of_controller: bool) -> dict[NoticeCondition, float]:
    """Check thresholds by condition. The value 0 means the usual one, and none at all means every condition.

    Args:
        of_controller: whether problems of the controller may be told.

    Raises:
        InvalidArgument: a condition is unknown or not for this account, or a threshold is out of its range.
    """
    allowed = {each: limits for each, limits in LIMITS.items() if of_controller or not limits.of_controller}
    if not given:
        return {condition: limits.usual for condition, limits in allowed.items()}
    found: dict[NoticeCondition, float] = {}
    for name, value in given.items():
        condition = next((each for each in allowed if each.value == name), None)
        if condition is None:
            known = ", ".join(each.value for each in allowed)
            raise InvalidArgument("thresholds", f"thresholds: {name[:80]!r} is no condition: use {known}")
        limits = allowed[condition]
        if value and not limits.least <= value <= limits.most:
            raise InvalidArgument(
                "thresholds", f"thresholds: {name} is {value:g}: use {limits.least:g} to {limits.most:g}"
            )
        found[condition] = value or limits.usual
    return found


def checked_target(url: str, signing_key: str | None) -> Target:
    """Check where a webhook is sent.

    Raises:
        InvalidArgument: the URL or the key is not valid.
    """
    return Target(url=checked_url("url", url), headers={}, signing_key=signing_key)


def checked_mailbox(url: str, to: Sequence[str], sender: str | None, password: str | None) -> Mailbox:
    """Check what e-mail needs.

    Args:
        url: the server, as smtp://user@host:587 or smtps://user@host.

    Raises:
        InvalidArgument: something of it is missing or not valid.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if parts.scheme not in ("smtp", "smtps") or not host or not url.isprintable() or port == 0 or " " in url:
        raise InvalidArgument("url", "url is no e-mail server: give it as smtp://user@host:587 or smtps://user@host")
    if parts.password is not None:
        raise InvalidArgument("url", "url has a password: give that as `password`, which is not shown")
    if not to or len(to) > _MOST_RECEIVERS:
        raise InvalidArgument("to", f"to has {len(to)} addresses: give 1 to {_MOST_RECEIVERS}")
    for address in (*to, *(() if sender is None else (sender,))):
        if not address.isascii() or not _ADDRESS.fullmatch(address):
            raise InvalidArgument("to", f"{address[:80]!r} is not an e-mail address, such as ops@example.com")
    user = unquote(parts.username) if parts.username else None
    if password is not None and (user is None or not 0 < len(password) <= _MOST_PASSWORD):
        raise InvalidArgument("password", "password needs a user in the URL, as smtp://user@host")
    encrypted = parts.scheme == "smtps"
    return Mailbox(
        host=host,
        port=port or (465 if encrypted else 587),
        encrypted=encrypted,
        user=user if password is not None else None,
        password=password,
        sender=sender or to[0],
        to=tuple(to),
    )


def _state(problem: Problem) -> str:
    return "firing" if problem.ended_at is None else "resolved"


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
