"""Health checks: what the platform calls, and how often."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """How the platform checks an endpoint.

    Attributes:
        start_period_seconds: seconds after a start in which failures do not count; at least the app's
            `startup_timeout`. Unset means 30.
        timeout_seconds: seconds that one check may take. Unset means 5.
        failure_threshold: consecutive failures that make the runner unhealthy. Unset means 3.
        call_regularly: check every 15 seconds. False checks only after a response that carries the header
            `x-fal-runner-health-check`; the threshold and the start period then have no meaning. Unset means True.
        method: "GET" or "POST". Unset means "POST": endpoints are served at POST.
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
    """A health check and its path, as a deploy sends them. Its fields are as in `HealthCheck`."""

    path: str
    start_period_seconds: int | None = None
    timeout_seconds: int | None = None
    failure_threshold: int | None = None
    call_regularly: bool | None = None
    method: str | None = None

    @classmethod
    def of(cls, path: str, check: HealthCheck) -> HealthCheckConfig:
        """Return the check of the endpoint at `path`. The method is POST unless given."""
        return cls(
            path=path,
            start_period_seconds=check.start_period_seconds,
            timeout_seconds=check.timeout_seconds,
            failure_threshold=check.failure_threshold,
            call_regularly=check.call_regularly,
            method=check.method or "POST",
        )
