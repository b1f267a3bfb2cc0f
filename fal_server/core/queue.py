"""The queue's requests, and the decision after each attempt. It may pass on the response, retry, or give up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from fal_server.core.identity import AccountId, AppId, app_id_of_row
from fal_server.core.json_reader import read_json
from fal_server.core.routing import Outcome, error_type_of

# The published limit, "10 attempts in total, always", which no header and no app can raise.
MOST_ATTEMPTS = 10
# A request that ends this many consecutive runners is to blame, and would end more.
MOST_ENDED_RUNNERS = 3
_TRUE = frozenset({"1", "true", "yes"})
_FALSE = frozenset({"0", "false", "no"})


class State(StrEnum):
    """The state of a request, under its published names."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"


class Priority(StrEnum):
    """A low request starts only if no normal one can. Both are of the same app."""

    NORMAL = "normal"
    LOW = "low"


class Condition(StrEnum):
    """Why an attempt is retried; apps set budgets under these published names."""

    TIMEOUT = "timeout"
    SERVER_ERROR = "server_error"
    CONNECTION_ERROR = "connection_error"


class WebhookState(StrEnum):
    """The state of a webhook's delivery; NONE if there is no webhook."""

    NONE = "none"
    WAITING = "waiting"
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedRequest:
    """An accepted request, without its body.

    Attributes:
        path: the path and query for the app.
        caller: the id of the caller's key; None for a public call.
        fingerprint: a hash of the request, which must match if its Idempotency-Key is repeated.
        attempt: the number of the last attempt, from 1.
        retries: the number of retries by condition.
        ended_runners: how many consecutive runners ended by themselves while they worked on this request alone.
        no_retry: the caller wants no retries (header x-fal-no-retry).
        not_before: it rests until then.
        start_deadline: no attempt starts after this.
        started_at: when the last attempt started.
        lease_until: an attempt that has not ended by then has no owner any more.
        alone: whether the runner of the last attempt had no other request, so that all its lines belong to this one.
        status: of the response; None until it is completed.
        dead: whether it was given up although a retry might help: see `fal queue redrive`.
        webhook_at: when the next delivery is due.
    """

    account: AccountId
    request_id: str
    app_name: str
    path: str
    method: str = "POST"
    caller: str | None = None
    priority: Priority = Priority.NORMAL
    hint: str | None = None
    no_retry: bool = False
    idempotency: str | None = None
    fingerprint: str = ""
    state: State = State.IN_QUEUE
    attempt: int = 0
    retries: Mapping[str, int] = field(default_factory=dict[str, int])
    ended_runners: int = 0
    created_at: datetime
    not_before: datetime | None = None
    start_deadline: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    lease_until: datetime | None = None
    runner_id: str | None = None
    alone: bool = False
    status: int | None = None
    error: str | None = None
    error_type: str | None = None
    dead: bool = False
    webhook: WebhookState = WebhookState.NONE
    webhook_attempts: int = 0
    webhook_at: datetime | None = None

    @property
    def app_id(self) -> AppId:
        """The app's identity; other accounts may use the same name."""
        return app_id_of_row(self.account, self.app_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A request's headers and body. The headers may contain credentials for the app and so are never shown."""

    headers: tuple[tuple[str, str], ...] = field(repr=False, default=())
    body: bytes = field(repr=False, default=b"")
    webhook_url: str | None = field(repr=False, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A runner's complete response."""

    status: int
    headers: tuple[tuple[str, str], ...] = field(repr=False, default=())
    body: bytes = field(repr=False, default=b"")

    def header(self, name: str) -> str | None:
        """Return a header's first value by its lower-case name, or None."""
        return next((value for key, value in self.headers if key == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An attempt without a complete response.

    Attributes:
        condition: the kind of failure.
        error_type: one of the published names.
        detail: for people.
        ended_runner: whether the runner ended by itself, while it worked on no other request.
    """

    condition: Condition
    error_type: str
    detail: str
    ended_runner: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """An app's rules for retries. They have the number by condition, and conditions that are not retried at all."""

    budgets: Mapping[Condition, int] = field(default_factory=dict[Condition, int])
    skipped: frozenset[Condition] = frozenset()

    def budget(self, condition: Condition, *, no_retry: bool) -> int:
        """Return how often a request may be retried. The caller's setting precedes the app's and the platform's."""
        if no_retry or condition in self.skipped:
            return 0
        return min(self.budgets.get(condition, MOST_ATTEMPTS - 1), MOST_ATTEMPTS - 1)

    def most_attempts(self, *, no_retry: bool) -> int:
        """Return the highest possible number of attempts."""
        return 1 + max(self.budget(condition, no_retry=no_retry) for condition in Condition)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryDecision:
    """The consequences of an attempt.

    Attributes:
        retry: why it is retried; None if the request is completed.
        dead: whether it is completed because its retries are used up.
        outcome: what happens to the runner.
        probe: whether the runner must first show that it still accepts connections (502 and 504).
        error, error_type: what went wrong; None for a response below 400.
        ended_runners: see `QueuedRequest`.
    """

    retry: Condition | None = None
    dead: bool = False
    outcome: Outcome = Outcome.DONE
    probe: bool = False
    error: str | None = None
    error_type: str | None = None
    ended_runners: int = 0


def policy_of(retry_config: str | None, skip_retry_conditions: tuple[str, ...]) -> Policy:
    """Return a revision's settings as a policy. Malformed ones fall back to the platform's default."""
    budgets: dict[Condition, int] = {}
    try:
        given = read_json(retry_config) if retry_config else {}
    except ValueError:
        given = {}
    for condition in Condition:
        entry: object = given.get(condition.value) if isinstance(given, dict) else None
        count: object = entry.get("retries") if isinstance(entry, dict) else entry
        if isinstance(count, int) and not isinstance(count, bool):
            budgets[condition] = max(count, 0)
    skipped = frozenset(condition for condition in Condition if condition.value in skip_retry_conditions)
    return Policy(budgets=budgets, skipped=skipped)


def decide_retry(request: QueuedRequest, seen: Answer | Failure, policy: Policy) -> RetryDecision:
    """Decide the consequences of a request's last attempt. The rules are in docs/reference/calling.md.

    Args:
        request: its state at the start of the attempt, so that `attempt` is its number.
        seen: the response, or why there is none.
        policy: of the revision that ran it.
    """
    condition, outcome, probe = _classify(seen)
    error, error_type = _describe(seen)
    if condition is None:
        return RetryDecision(outcome=outcome, probe=probe, error=error, error_type=error_type)
    used = request.retries.get(condition.value, 0)
    spent = used >= policy.budget(condition, no_retry=request.no_retry) or request.attempt >= MOST_ATTEMPTS
    ended_runners = request.ended_runners + 1 if isinstance(seen, Failure) and seen.ended_runner else 0
    if ended_runners >= MOST_ENDED_RUNNERS:
        spent = True
        error = f"{error}; given up, because it has ended {ended_runners} runners in a row"
    return RetryDecision(
        retry=None if spent else condition,
        dead=spent,
        outcome=outcome,
        probe=probe,
        error=error,
        error_type=error_type,
        ended_runners=ended_runners,
    )


def switch(value: str | None) -> bool | None:
    """Return a header's value as a bool. It is 1 or 0, true or false. None if it is missing or neither."""
    text = (value or "").strip().lower()
    return True if text in _TRUE else False if text in _FALSE else None


def lease_until(now: datetime, request_timeout_seconds: float) -> datetime:
    """Return when an attempt that starts now loses its owner. The owner cuts it off before that."""
    return now + timedelta(seconds=request_timeout_seconds + 60)


def _classify(seen: Answer | Failure) -> tuple[Condition | None, Outcome, bool]:
    """Return the reason to retry, the runner's outcome, and whether to probe. The reason may be None."""
    if isinstance(seen, Failure):
        return (
            seen.condition,
            Outcome.TIMED_OUT if seen.condition is Condition.TIMEOUT else Outcome.RUNNER_FAILED,
            False,
        )
    status = seen.status
    outcome = Outcome.DONE
    if status == 503:
        outcome = Outcome.UNAVAILABLE
    elif seen.header("x-fal-stop-runner") == "1":
        outcome = Outcome.STOP_RUNNER
    condition = {503: Condition.SERVER_ERROR, 504: Condition.TIMEOUT}.get(status)
    if status >= 500 or status == 429:
        wanted = switch(seen.header("x-fal-needs-retry"))
        if wanted is False:
            condition = None
        elif wanted is True and condition is None:
            condition = Condition.SERVER_ERROR
    return condition, outcome, status in (502, 504)


def _describe(seen: Answer | Failure) -> tuple[str | None, str | None]:
    if isinstance(seen, Failure):
        return seen.detail, seen.error_type
    if seen.status < 400:
        return None, None
    given = seen.header("x-fal-error-type")
    return f"the app answered {seen.status}", given or error_type_of(seen.status)
