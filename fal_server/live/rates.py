"""Refuses requests to apps that exceed the rates in the accounts' quotas."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from functools import lru_cache

from fal_server.core.faults import RateLimited
from fal_server.core.identity import AccountId
from fal_server.core.quotas import QuotasOf, TokenBucket, whole_seconds
from fal_server.live.dispatch import RoutedApp

MOST_CALLERS = 10_000


class Rates:
    """Counts the requests of accounts and of their callers.

    Counted: by the process that answers the requests. A caller that has sent none for a second needs no counter, so
    the least recently used counters are dropped if there are too many.

    Args:
        quotas: returns the quotas of an account.
        seconds: a monotonic clock.
    """

    def __init__(self, quotas: QuotasOf, seconds: Callable[[], float] = time.monotonic) -> None:
        self._quotas = quotas
        self._seconds = seconds
        self._accounts: dict[AccountId, TokenBucket] = {}
        self._callers: dict[tuple[AccountId, str], TokenBucket] = {}

    def count(self, app: RoutedApp, key_id: str | None, address: Callable[[], str]) -> None:
        """Count a request to an app.

        Args:
            key_id: of the caller's key; None for a caller without one.
            address: returns the caller's address without a port. It identifies the caller of a public app, because keys
                are not looked up for those.

        Raises:
            RateLimited: it comes too early; it is not counted.
        """
        account = app.app_id.account
        quotas = self._quotas(account)
        rate, caller_rate = quotas.requests_per_second, quotas.caller_requests_per_second
        if not rate and not caller_rate:
            return
        now = self._seconds()
        mine: TokenBucket | None = None
        if caller_rate:
            caller = network_of(address()) if app.public or key_id is None else key_id
            mine = self._of_caller(account, caller, caller_rate, now)
            if wait := mine.take(caller_rate, now):
                raise _too_fast("you send", caller_rate, wait)
        if rate:
            together = self._accounts.get(account)
            if together is None:
                together = self._accounts[account] = TokenBucket(rate, now)
            if wait := together.take(rate, now):
                if mine is not None:
                    mine.give_back()
                raise _too_fast("the callers of this account's apps together send", rate, wait)

    def _of_caller(self, account: AccountId, caller: str, rate: int, now: float) -> TokenBucket:
        bucket = self._callers.pop((account, caller), None)
        if bucket is None:
            bucket = TokenBucket(rate, now)
            if len(self._callers) >= MOST_CALLERS:
                del self._callers[next(iter(self._callers))]
        self._callers[account, caller] = bucket  # the most recent one is last
        return bucket


@lru_cache(maxsize=4096)  # parsing an address takes longer than everything else here
def network_of(address: str) -> str:
    """Return a caller's network: an IPv4 address, or an IPv6 /64. That is the usual size for one customer."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))


def _too_fast(who: str, rate: int, wait: float) -> RateLimited:
    seconds = whole_seconds(wait)
    return RateLimited(
        f"{who} more than the {rate} requests a second that its quota allows: try again in {seconds} s, or queue "
        "requests that can wait",
        retry_after_seconds=seconds,
    )
