"""Log drains: receivers of log lines, and what is sent to them."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from urllib.parse import urlsplit, urlunsplit

from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import AccountId
from fal_server.core.logs import LogEntry, LogLevel

SIGNATURE = "x-fal-signature"
REACHES_BACK = timedelta(seconds=30)
"""A new drain begins with the lines of this time before."""
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]{0,8190}[\x21-\x7e])?")
# The client and the formatter say these themselves.
_OWN_HEADERS = frozenset(
    {"connection", "content-encoding", "content-length", "content-type", "host", "transfer-encoding"}
)
_MOST_HEADERS = 32
_LEAST_KEY_CHARACTERS = 32
_MOST_KEY_CHARACTERS = 4096


class DrainFormat(StrEnum):
    """How lines are written for a receiver."""

    NDJSON = "ndjson"
    OTLP = "otlp"
    LOKI = "loki"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where and with what a drain sends; stored sealed.

    Attributes:
        headers: of each call, by their names.
        signing_key: signs the body; None does not sign.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    signing_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if len(self.headers) > _MOST_HEADERS:
            raise InvalidArgument("headers", f"headers are {len(self.headers)}: use at most {_MOST_HEADERS}")
        for name, value in self.headers.items():
            if not _HEADER.fullmatch(name) or name.lower() in (*_OWN_HEADERS, SIGNATURE):
                raise InvalidArgument("headers", f"headers: {name[:80]!r} is not a header that a drain can have")
            if not _HEADER_VALUE.fullmatch(value):
                raise InvalidArgument("headers", f"headers: the value of {name} cannot be a header's: use ASCII text")
        if self.signing_key is not None and not _LEAST_KEY_CHARACTERS <= len(self.signing_key) <= _MOST_KEY_CHARACTERS:
            raise InvalidArgument(
                "signing_key",
                f"signing_key has {len(self.signing_key)} characters: use {_LEAST_KEY_CHARACTERS} to "
                f"{_MOST_KEY_CHARACTERS}",
            )

    @property
    def shown_url(self) -> str:
        """The URL without what may be a credential."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "..." if parts.query else "", ""))

    def signature_headers(self, body: bytes) -> tuple[tuple[str, str], ...]:
        """Return the header with the HMAC-SHA256 of a body in hex. There is none without a key."""
        if self.signing_key is None:
            return ()
        return ((SIGNATURE, hmac.new(self.signing_key.encode(), body, hashlib.sha256).hexdigest()),)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogDrain:
    """A receiver of an account's log lines.

    Attributes:
        drain_id: unlike the name it is never used again.
        shown_url: where it sends, without what may be a credential.
        apps: only lines of these apps, by their full names; empty means all.
        least_level: only lines of this level and above.
        since: of runners of which nothing was sent, only lines from this time on.
        sent_lines: how many the receiver took.
        lost_lines: how many were deleted before they were sent.
        last_error: why the last delivery failed; None if it did not.
    """

    account: AccountId
    drain_id: str
    name: str
    shown_url: str
    format: DrainFormat
    apps: tuple[str, ...] = ()
    least_level: LogLevel = LogLevel.TRACE
    header_names: tuple[str, ...] = ()
    signed: bool = False
    paused: bool = False
    created_at: datetime
    since: datetime
    sealed: bytes = field(repr=False)
    sent_lines: int = 0
    lost_lines: int = 0
    last_sent_at: datetime | None = None
    last_error: str | None = None
    last_error_at: datetime | None = None

    @property
    def levels(self) -> frozenset[LogLevel]:
        """The levels that it sends."""
        every = list(LogLevel)
        return frozenset(every[every.index(self.least_level) :])

    def covers(self, account: AccountId, app_name: str) -> bool:
        """Return whether it sends lines of an app."""
        return account == self.account and (not self.apps or app_name in self.apps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsent:
    """What waits for a drain. It says how many lines, and since when the oldest."""

    lines: int = 0
    oldest_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainBatch:
    """The next lines of a drain.

    Attributes:
        entries: those that it sends, each runner's in order.
        reached: by runner, the last sequence that was read, whether it is sent or not.
        read_lines: how many lines were read.
        left: the runners that may have more lines.
    """

    entries: Sequence[LogEntry]
    reached: Mapping[str, int]
    read_lines: int
    left: frozenset[str]


def checked_drain_name(name: str) -> str:
    """Check the name of a drain.

    Raises:
        InvalidArgument: it is empty, or not 1 to 64 lower-case letters, digits and inner hyphens.
    """
    if not _NAME.fullmatch(name):
        raise InvalidArgument("name", f"name {name[:80]!r} is not a drain's name: use 1 to 64 of a-z, 0-9 and hyphens")
    return name
