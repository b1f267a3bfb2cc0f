"""Quotas of accounts and their callers, and the counters that enforce rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Final, TypeAlias

from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import AccountId

MOST: Final = 2**53
"""The highest limit: JSON readers hold no larger whole number exactly."""
_USUAL_QUEUED_REQUESTS = 100_000
_USUAL_QUEUED_BYTES = 4 * 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """The limits of an account; 0 means no limit. The defaults apply to accounts without their own.

    Attributes:
        requests_per_second: to its apps, by all callers together.
        caller_requests_per_second: to its apps, by each key; to public apps, by each address.
        queued_requests: requests that are not completed.
        queued_bytes: the size of their bodies.
        runners: runners that have a process.
        log_bytes_per_minute: lines that its runners write.
        data_bytes: of /data, when a file is written through the controller.
    """

    requests_per_second: int = 0
    caller_requests_per_second: int = 0
    queued_requests: int = _USUAL_QUEUED_REQUESTS
    queued_bytes: int = _USUAL_QUEUED_BYTES
    runners: int = 0
    log_bytes_per_minute: int = 0
    data_bytes: int = 0

    def __post_init__(self) -> None:
        for name, bound in asdict(self).items():
            if not 0 <= bound <= MOST:
                raise InvalidArgument(name, f"{name} is {bound}: use 0 for no limit, or at most {MOST}")

    def changed(self, changes: Mapping[str, int]) -> Quotas:
        """Return these quotas with some limits changed.

        Raises:
            InvalidArgument: a limit is negative or too large.
        """
        return replace(self, **changes)

    @property
    def unusual(self) -> Mapping[str, int]:
        """The limits that differ from the defaults, by name."""
        return {name: bound for name, bound in asdict(self).items() if bound != getattr(USUAL, name)}


USUAL: Final = Quotas()
QuotasOf: TypeAlias = Callable[[AccountId], Quotas]


def usual_quotas(_account: AccountId) -> Quotas:
    """Return the default quotas."""
    return USUAL


class TokenBucket:
    """Counts requests against a rate; one second's requests may come at once.

    Args:
        now: seconds of a monotonic clock.
    """

    __slots__ = ("_at", "_tokens")

    def __init__(self, rate: int, now: float) -> None:
        self._tokens = float(rate)
        self._at = now

    def take(self, rate: int, now: float) -> float:
        """Count a request if it is allowed now.

        Returns:
            0 if it was counted, otherwise the seconds until one is allowed.
        """
        tokens = self._tokens + (now - self._at) * rate
        if tokens > rate:
            tokens = rate
        self._at = now
        if tokens >= 1:
            self._tokens = tokens - 1
            return 0.0
        self._tokens = tokens
        return (1 - tokens) / rate

    def give_back(self) -> None:
        """Undo the last count."""
        self._tokens += 1


def whole_seconds(seconds: float) -> int:
    """Return the seconds to tell a caller, at least one."""
    return max(1, ceil(seconds))
