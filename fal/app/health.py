"""Health checks: what an app asks the platform to call, and how often."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """How the platform is to check the endpoint that this is given to.

    Attributes:
        start_period_seconds: seconds after a start during which failures do not count; at least the app's
            `startup_timeout` is used. Unset means 30.
        timeout_seconds: seconds that one check may take. Unset means 5.
        failure_threshold: failures in a row after which the runner counts as unhealthy. Unset means 3.
        call_regularly: check every 15 seconds. False checks only after a response that carries the header
            `x-fal-runner-health-check`; the threshold and the start period then have no meaning. Unset means True.
        method: "GET" or "POST". Unset means "POST", which is how endpoints are served.
    """

    start_period_seconds: int | None = None
    timeout_seconds: int | None = None
    failure_threshold: int | None = None
    call_regularly: bool | None = None
    method: str | None = None

    def __post_init__(self) -> None:
        for name in ("start_period_seconds", "timeout_seconds", "failure_threshold"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                raise ValueError(f"HealthCheck.{name} is {value!r}: give a whole number of 0 or more")
        if self.method is not None and self.method.upper() not in {"GET", "POST"}:
            raise ValueError(f"HealthCheck.method is {self.method!r}: give 'GET' or 'POST'")


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheckConfig:
    """A health check together with the path it is for, as a deploy sends it; fields as in `HealthCheck`."""

    path: str
    start_period_seconds: int | None = None
    timeout_seconds: int | None = None
    failure_threshold: int | None = None
    call_regularly: bool | None = None
    method: str | None = None

    @classmethod
    def of(cls, path: str, check: HealthCheck) -> HealthCheckConfig:
        """The check of the endpoint at `path`; endpoints answer POST, so that is the method where none is given."""
        return cls(
            path=path,
            start_period_seconds=check.start_period_seconds,
            timeout_seconds=check.timeout_seconds,
            failure_threshold=check.failure_threshold,
            call_regularly=check.call_regularly,
            method=check.method or "POST",
        )
