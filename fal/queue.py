"""The queues of apps as those see them who run the apps: sizes, requests, cancelling, and queueing again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import quote

from fal.rest_messages import objects, parse_time
from fal_grpc.adapter.values import JSON
from fal_grpc.errors import ArgumentError, UnknownError

if TYPE_CHECKING:
    from fal.rest import Rest
    from fal.rest_aio import AsyncRest

MAX_LISTED = 1000
"""The most requests that one listing returns."""


class QueueState(StrEnum):
    """Where a request is; UNKNOWN for a word that this version does not know."""

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
    """One try to deliver a webhook: the status that the receiver answered, or the error that there was instead."""

    number: int
    at: datetime | None
    status: int | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedRequest:
    """What is known of a queued request, but nothing of what it carries.

    Attributes:
        request_id: its id, the same in every attempt.
        app: the app.
        method: of HTTP.
        path: below the app, without its query.
        caller: the id of the key that it came with, or "public".
        priority: "normal" or "low".
        state: where it is.
        attempt: the number of the last attempt that began; 0 before the first.
        not_before: when it may be tried again at the earliest; None where it need not rest.
        runner_id: the runner of the last attempt.
        status: of the answer, once it is completed.
        error: why it failed, for people; `error_type` is the same for programs.
        dead: it was given up, though another attempt might help.
        webhook: how far its webhook is.
        webhook_attempts: how often that was tried.
        webhook_at: when it will be tried next.
        queue_position: how many are before it; None but from `get` of one that waits.
        deliveries: the tries to deliver its webhook; only from `get`.
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
    deliveries: tuple[WebhookDelivery, ...] = ()


class Queues:
    """The queues of the account's apps, over HTTP. Every call can raise `CallError`."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest
        self._owner: str | None = None

    def size(self, app: str) -> int:
        """Return how many requests wait."""
        return _number(self._ask("GET", app), "size")

    def size_by_user(self, app: str) -> dict[str, int]:
        """Return how many requests wait, by the callers' ids."""
        return _counts(self._ask("GET", app, query={"by_user": "true"}))

    def flush(self, app: str, caller: str | None) -> int:
        """Cancel the requests that wait, and return how many there were."""
        return _number(self._ask("DELETE", app, query={"caller_user_id": caller}), "flushed")

    def list(self, app: str, state: QueueState | str | None, *, dead: bool, limit: int) -> list[QueuedRequest]:
        """Return the requests, the newest first."""
        answer = self._ask("GET", app, "requests", query=_filter(state, dead, limit))
        return [_request(item) for item in objects(answer.get("requests"))]

    def get(self, app: str, request_id: str) -> QueuedRequest:
        """Return one request."""
        return _request(self._ask("GET", app, "requests", request_id))

    def cancel(self, app: str, request_id: str) -> QueuedRequest:
        """Cancel a request, and return it as it is afterwards."""
        return _request(self._ask("POST", app, "requests", request_id, "cancel"))

    def redrive(self, app: str, request_id: str) -> QueuedRequest:
        """Queue a dead request again, and return it as it is afterwards."""
        return _request(self._ask("POST", app, "requests", request_id, "redrive"))

    def _ask(
        self, method: str, app: str, *parts: str, query: Mapping[str, str | None] | None = None
    ) -> dict[str, JSON]:
        if self._owner is None:
            self._owner = _nickname(self._rest.ask("GET", "/users/current"))
        path = "/".join(["/applications", *(quote(part, safe="") for part in (self._owner, app, "queue", *parts))])
        answer = self._rest.ask(method, path, query)
        return answer if isinstance(answer, dict) else {}


class AsyncQueues:
    """The queues of the account's apps, over HTTP. Every call can raise `CallError`."""

    def __init__(self, rest: AsyncRest) -> None:
        self._rest = rest
        self._owner: str | None = None

    async def size(self, app: str) -> int:
        """Return how many requests wait."""
        return _number(await self._ask("GET", app), "size")

    async def size_by_user(self, app: str) -> dict[str, int]:
        """Return how many requests wait, by the callers' ids."""
        return _counts(await self._ask("GET", app, query={"by_user": "true"}))

    async def flush(self, app: str, caller: str | None) -> int:
        """Cancel the requests that wait, and return how many there were."""
        return _number(await self._ask("DELETE", app, query={"caller_user_id": caller}), "flushed")

    async def list(self, app: str, state: QueueState | str | None, *, dead: bool, limit: int) -> list[QueuedRequest]:
        """Return the requests, the newest first."""
        answer = await self._ask("GET", app, "requests", query=_filter(state, dead, limit))
        return [_request(item) for item in objects(answer.get("requests"))]

    async def get(self, app: str, request_id: str) -> QueuedRequest:
        """Return one request."""
        return _request(await self._ask("GET", app, "requests", request_id))

    async def cancel(self, app: str, request_id: str) -> QueuedRequest:
        """Cancel a request, and return it as it is afterwards."""
        return _request(await self._ask("POST", app, "requests", request_id, "cancel"))

    async def redrive(self, app: str, request_id: str) -> QueuedRequest:
        """Queue a dead request again, and return it as it is afterwards."""
        return _request(await self._ask("POST", app, "requests", request_id, "redrive"))

    async def _ask(
        self, method: str, app: str, *parts: str, query: Mapping[str, str | None] | None = None
    ) -> dict[str, JSON]:
        if self._owner is None:
            self._owner = _nickname(await self._rest.ask("GET", "/users/current"))
        path = "/".join(["/applications", *(quote(part, safe="") for part in (self._owner, app, "queue", *parts))])
        answer = await self._rest.ask(method, path, query)
        return answer if isinstance(answer, dict) else {}


def parse_state(state: QueueState | str) -> QueueState:
    """A state by its word, upper or lower case.

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


def _nickname(user: JSON) -> str:
    nickname = user.get("nickname") if isinstance(user, dict) else None
    if not isinstance(nickname, str):
        raise UnknownError("the controller did not say whose key this is")
    return nickname


def _counts(answer: Mapping[str, JSON]) -> dict[str, int]:
    found = answer.get("by_user")
    return {name: count for name, count in found.items() if isinstance(count, int)} if isinstance(found, dict) else {}


def _filter(state: QueueState | str | None, dead: bool, limit: int) -> dict[str, str | None]:
    if not 1 <= limit <= MAX_LISTED:
        raise ArgumentError("limit", f"{limit} is not from 1 to {MAX_LISTED}")
    wanted = None if state is None else parse_state(state).value
    return {"state": wanted, "dead": "1" if dead else None, "limit": str(limit)}


def _request(item: Mapping[str, JSON]) -> QueuedRequest:
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
