"""Request rates: at most the limit in any second. They are separate for each caller, with few counters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.faults import InvalidArgument, RateLimited
from fal_server.core.identity import AccountId, AppId
from fal_server.core.quotas import MOST, Quotas, TokenBucket
from fal_server.live.dispatch import RoutedApp
from fal_server.live.rates import MOST_CALLERS, Rates, network_of

ALICE, BOB = AccountId("alice"), AccountId("bob")


def app(account: AccountId, *, public: bool = False) -> RoutedApp:
    app_id = AppId(account=account, environment="main", name="a")
    return RoutedApp(app_id=app_id, public=public, request_timeout=1, request_start_timeout=None)


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def nobody() -> str:
    raise AssertionError("whoever has a key is not known by the address")


@given(st.integers(1, 50), st.lists(st.floats(0, 2), max_size=200))
def test_a_bucket_never_lets_through_more_than_a_burst_and_the_rate(rate: int, pauses: list[float]) -> None:
    bucket, now, passed = TokenBucket(rate, 0), 0.0, 0
    for pause in pauses:
        now += pause
        wait = bucket.take(rate, now)
        passed += not wait
        assert 0 <= wait <= 1 / rate + 1e-9
    assert passed <= rate + now * rate + 1e-6


@given(st.integers(1, 50), st.floats(0, 100))
def test_after_the_wait_that_is_told_one_more_is_allowed(rate: int, at: float) -> None:
    bucket = TokenBucket(rate, at)
    while not (wait := bucket.take(rate, at)):
        continue
    assert bucket.take(rate, at + wait + 1e-6) == 0


def test_the_bound_of_a_caller_and_of_the_account() -> None:
    time = Time()
    quotas = {ALICE: Quotas(requests_per_second=3, caller_requests_per_second=2), BOB: Quotas()}
    rates = Rates(lambda account: quotas[account], time)
    for _ in range(2):
        rates.count(app(ALICE), "one", nobody)
    with pytest.raises(RateLimited, match="you send more than the 2 requests a second"):
        rates.count(app(ALICE), "one", nobody)
    rates.count(app(ALICE), "two", nobody)
    with pytest.raises(RateLimited, match="together send more than the 3"):
        rates.count(app(ALICE), "two", nobody)
    for _ in range(1000):
        rates.count(app(BOB), None, nobody)
    time.now += 1
    for _ in range(2):
        rates.count(app(ALICE), "one", nobody)
    for _ in range(3):
        with pytest.raises(RateLimited, match="you send"):
            rates.count(app(ALICE), "one", nobody)
    rates.count(app(ALICE), "two", nobody)
    with pytest.raises(RateLimited, match="together"):
        rates.count(app(ALICE), "three", nobody)
    quotas[ALICE] = Quotas(caller_requests_per_second=2)
    for _ in range(2):
        rates.count(app(ALICE), "three", nobody)  # requests that the account's limit refused were not counted
    quotas[ALICE] = Quotas()
    for _ in range(1000):
        rates.count(app(ALICE), "one", nobody)


def test_callers_without_a_key_are_their_address() -> None:
    rates = Rates(lambda _: Quotas(caller_requests_per_second=1), Time())
    rates.count(app(ALICE), None, lambda: "10.0.0.1")
    rates.count(app(ALICE), None, lambda: "10.0.0.2")
    rates.count(app(BOB), None, lambda: "10.0.0.1")
    with pytest.raises(RateLimited):
        rates.count(app(ALICE, public=True), "key", lambda: "10.0.0.1")
    for address in ("10.0.0.1", "::ffff:10.0.0.1"):
        with pytest.raises(RateLimited):
            rates.count(app(ALICE), None, lambda address=address: address)
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db8:0:1::1")
    assert network_of("fe80::1%eth0") == "fe80::/64"
    assert network_of("") == ""


def test_the_counters_stay_few() -> None:
    rates = Rates(lambda _: Quotas(caller_requests_per_second=1), Time())
    rates.count(app(ALICE), "first", nobody)
    for number in range(MOST_CALLERS - 1):
        rates.count(app(ALICE), None, lambda number=number: f"a{number}")
    with pytest.raises(RateLimited):
        rates.count(app(ALICE), "first", nobody)
    for number in range(10):
        rates.count(app(ALICE), None, lambda number=number: f"b{number}")
    with pytest.raises(RateLimited):
        rates.count(app(ALICE), "first", nobody)
    assert len(rates._callers) == MOST_CALLERS  # the promise is about their number


@pytest.mark.parametrize("bound", [-1, MOST + 1])
def test_bounds_that_cannot_be(bound: int) -> None:
    with pytest.raises(InvalidArgument, match="runners is"):
        Quotas(runners=bound)
    with pytest.raises(InvalidArgument, match="runners is"):
        Quotas().changed({"runners": bound})
