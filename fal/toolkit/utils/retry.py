"""Calls a function again after a failure."""

from __future__ import annotations

import asyncio
import functools
import inspect
import random
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, ParamSpec, TypeVar, cast

_P = ParamSpec("_P")
_R = TypeVar("_R")
BackoffType = Literal["exponential", "fixed"]


def retry(
    max_retries: int = 3,
    base_delay: float = 1.0,
    max_delay: float = 60.0,
    backoff_type: BackoffType = "exponential",
    jitter: bool = False,
    should_retry: Callable[[Exception], bool] | None = None,
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Call the decorated function, plain or async, until it does not raise.

    Args:
        max_retries: the most calls; the last one's exception is raised.
        base_delay: seconds before the second call.
        max_delay: the most seconds before a call.
        backoff_type: whether each delay doubles, or all are the same.
        jitter: change each delay by up to a half, so that many callers do not call at once.
        should_retry: decides whether to call again after an exception; None always does.
    """

    policy = _Policy(max_retries, base_delay, max_delay, backoff_type == "exponential", jitter, should_retry)

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        if inspect.iscoroutinefunction(function):
            return cast("Callable[_P, _R]", policy.around_async(cast("Callable[_P, Awaitable[object]]", function)))
        return policy.around(function)

    return decorate


@dataclass(frozen=True, slots=True)
class _Policy:
    most: int
    base_delay: float
    max_delay: float
    doubles: bool
    jitter: bool
    allows: Callable[[Exception], bool] | None

    def around(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        @functools.wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            failures = 0
            while True:
                try:
                    return function(*args, **kwargs)
                except Exception as error:
                    failures += 1
                    if self._gives_up(error, failures):
                        raise
                time.sleep(self._delay(failures))

        return call

    def around_async(self, function: Callable[_P, Awaitable[object]]) -> Callable[_P, Awaitable[object]]:
        @functools.wraps(function)
        async def call(*args: _P.args, **kwargs: _P.kwargs) -> object:
            failures = 0
            while True:
                try:
                    return await function(*args, **kwargs)
                except Exception as error:
                    failures += 1
                    if self._gives_up(error, failures):
                        raise
                await asyncio.sleep(self._delay(failures))

        return call

    def _gives_up(self, error: Exception, failures: int) -> bool:
        if failures >= self.most or (self.allows is not None and not self.allows(error)):
            return True
        print(f"fal: call {failures} of {self.most} failed: {error}", file=sys.stderr, flush=True)  # noqa: T201
        return False

    def _delay(self, failures: int) -> float:
        # 2**1000 is near the largest float; the delay reached its limit long before.
        seconds = self.base_delay * 2.0 ** min(failures - 1, 1000) if self.doubles else self.base_delay
        return min(seconds, self.max_delay) * (random.uniform(0.5, 1.5) if self.jitter else 1.0)  # noqa: S311
