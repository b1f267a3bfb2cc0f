"""The owner's view of app queues: sizes, requests, cancelling, and queueing again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from fal.rest_messages import objects, parse_time, segment
from fal_grpc.adapter.values import JSON, flag
from fal_grpc.adapter.values import count as checked_count
from fal_grpc.errors import ArgumentError, UnknownError

MAX_LISTED = 1000
"""The most requests that one listing returns."""
MAX_REDRIVEN = 100
"""The most requests that one call can queue again."""


class QueueState(StrEnum):
    """The state of a request. UNKNOWN is a state that this version does not know."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    UNKNOWN = "UNKNOWN"

    @classmethod
    def _missing_(cls, value: object) -> QueueState | None:
        word = str(value).upper()
        return cls.__members__.get(word) if word != "UNKNOWN" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookDelivery:
    """One attempt to deliver a webhook: the receiver's HTTP status, or error."""

    number: int
    at: datetime | None
    status: int | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedRequest:
    """A queued request, without its body and headers.

    Attributes:
        request_id: its id, the same in every attempt.
        app: the app.
        method: the HTTP method.
        path: the path below the app, without its query.
        caller: the id of the caller's key, or "public".
        priority: "normal" or "low".
        state: its current state.
        attempt: the number of the last attempt that started; 0 before the first.
        not_before: the earliest time of the next attempt; None if there is no pause.
        runner_id: the runner of the last attempt.
        status: the response's HTTP status, once the request is completed.
        error: why it failed, for people; `error_type` is for programs.
        dead: it was given up, though another attempt might succeed.
        webhook: the state of its webhook.
        webhook_attempts: the number of deliveries attempted.
        webhook_at: the time of the next delivery.
        queue_position: the number of requests ahead; only `get` sets it, and only for a waiting request.
        reason: another cause of the wait, for example a failed start; only `get` sets it, and None means no such cause.
        next_try_at: when the controller tries that again, if known.
        deliveries: the attempts to deliver its webhook; only `get` sets it.
    """

    request_id: str
    app: str
    method: str
    path: str
    caller: str
    priority: str
    state: QueueState
    attempt: int
    created_at: datetime | None
    not_before: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    runner_id: str | None
    status: int | None
    error: str | None
    error_type: str | None
    dead: bool
    webhook: str
    webhook_attempts: int
    webhook_at: datetime | None
    queue_position: int | None = None
    reason: str | None = None
    next_try_at: datetime | None = None
    deliveries: tuple[WebhookDelivery, ...] = ()


def queue_path(owner: str, app_name: str, *parts: str) -> str:
    """Return the path of an app's queue or a resource in it."""
    return "/".join(["/applications", *(segment(part) for part in (owner, app_name, "queue", *parts))])


def owner_name(user: JSON) -> str:
    """Return the account's name from the response of /users/current.

    Raises:
        UnknownError: the response lacks it.
    """
    nickname = user.get("nickname") if isinstance(user, dict) else None
    if not isinstance(nickname, str):
        raise UnknownError("the controller did not say whose key this is")
    return nickname


def list_parameters(state: QueueState | str | None, *, dead: bool, limit: int) -> dict[str, str | None]:
    """Return the query parameters of a listing.

    Raises:
        ArgumentError: the state is unknown, or the limit is out of range.
    """
    if not 1 <= (checked_count("limit", limit) or 0) <= MAX_LISTED:
        raise ArgumentError("limit", f"{limit} is not from 1 to {MAX_LISTED}")
    wanted = None if state is None else parse_state(state).value
    return {"state": wanted, "dead": "1" if flag("dead", dead) else None, "limit": str(limit)}


def count(answer: Mapping[str, JSON], name: str) -> int:
    """Return a number of a response; 0 if it is missing."""
    return _number(answer, name)


def counts_by_user(answer: Mapping[str, JSON]) -> dict[str, int]:
    """Return the number of waiting requests by the caller's id."""
    found = answer.get("by_user")
    return (
        {name: number for name, number in found.items() if isinstance(number, int)} if isinstance(found, dict) else {}
    )


def queued_requests(answer: Mapping[str, JSON]) -> list[QueuedRequest]:
    """Return the requests of a listing."""
    return [queued_request(item) for item in objects(answer.get("requests"))]


def request_ids(answer: Mapping[str, JSON]) -> list[str]:
    """Return the ids that a response lists."""
    ids = answer.get("request_ids")
    return [one for one in ids if isinstance(one, str)] if isinstance(ids, list) else []


def parse_state(state: QueueState | str) -> QueueState:
    """Return the state of a name in upper or lower case.

    Raises:
        ArgumentError: there is no such state.
    """
    try:
        found = QueueState(state)
    except ValueError:
        found = QueueState.UNKNOWN
    if found is QueueState.UNKNOWN:
        known = ", ".join(one.value for one in QueueState if one is not QueueState.UNKNOWN)
        raise ArgumentError("state", f"{str(state)[:80]!r} is none of {known}")
    return found


def queued_request(item: Mapping[str, JSON]) -> QueuedRequest:
    """Return the request that a response describes."""
    state = item.get("state")
    deliveries = item.get("deliveries")
    return QueuedRequest(
        request_id=_text(item, "request_id"),
        app=_text(item, "app"),
        method=_text(item, "method"),
        path=_text(item, "path"),
        caller=_text(item, "caller"),
        priority=_text(item, "priority"),
        state=QueueState.__members__.get(str(state), QueueState.UNKNOWN),
        attempt=_number(item, "attempt"),
        created_at=parse_time(item.get("created_at")),
        not_before=parse_time(item.get("not_before")),
        started_at=parse_time(item.get("started_at")),
        completed_at=parse_time(item.get("completed_at")),
        runner_id=_text(item, "runner_id") or None,
        status=_optional_number(item, "status"),
        error=_optional_text(item, "error"),
        error_type=_optional_text(item, "error_type"),
        dead=item.get("dead") is True,
        webhook=_text(item, "webhook"),
        webhook_attempts=_number(item, "webhook_attempts"),
        webhook_at=parse_time(item.get("webhook_at")),
        queue_position=_optional_number(item, "queue_position"),
        reason=_optional_text(item, "reason"),
        next_try_at=parse_time(item.get("next_try_at")),
        deliveries=tuple(
            WebhookDelivery(
                number=_number(one, "number"),
                at=parse_time(one.get("at")),
                status=_optional_number(one, "status"),
                error=_optional_text(one, "error"),
            )
            for one in (deliveries if isinstance(deliveries, list) else ())
            if isinstance(one, dict)
        ),
    )


def _text(item: Mapping[str, JSON], name: str) -> str:
    return _optional_text(item, name) or ""


def _optional_text(item: Mapping[str, JSON], name: str) -> str | None:
    value = item.get(name)
    return value if isinstance(value, str) else None


def _number(item: Mapping[str, JSON], name: str) -> int:
    return _optional_number(item, name) or 0


def _optional_number(item: Mapping[str, JSON], name: str) -> int | None:
    value = item.get(name)
    return value if isinstance(value, int) else None
