"""`client.queue` for asyncio: the requests that wait for the caller's own apps."""

# The source of fal/api/queue.py: run `make gen` after a change.

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from fal import queue as answers
from fal.queue import QueuedRequest, QueueState
from fal_grpc.adapter.app import app_name as checked_name
from fal_grpc.adapter.values import count, text, texts

if TYPE_CHECKING:
    from fal.api.opener import AsyncOpener
    from fal_grpc.adapter.values import JSON

_NO_USER = "must be an id that is not empty; leave it out to mean all"


class AsyncQueueNamespace:
    """The queues of the apps; `fal queue` on the command line. Use it as `client.queue`.

    Example:
        async with AsyncServerlessClient() as client:
            print(await client.queue.size("my-app"))
            for request in await client.queue.list("my-app", dead=True):
                await client.queue.redrive("my-app", request.request_id)
    """

    def __init__(self, client: AsyncOpener) -> None:
        self.client = client
        self._owner: str | None = None

    async def size(self, app_name: str) -> int:
        """Return how many requests wait for an app.

        Raises:
            NotFoundError: there is no such app.
        """
        return answers.count(await self._ask("GET", app_name), "size")

    async def size_by_user(self, app_name: str) -> dict[str, int]:
        """Return how many requests wait for an app, by user. A user is the id of the caller's key, or "public".

        Raises:
            NotFoundError: there is no such app.
        """
        return answers.counts_by_user(await self._ask("GET", app_name, query={"by_user": "true"}))

    async def flush(self, app_name: str, *, caller_user_id: str | None = None, limit: int | None = None) -> int:
        """Cancel all requests that wait for an app; those in progress continue.

        Repeating it is safe. Each call has the client's deadline, so cancel a long queue with a limit, and repeat the
        call until it cancels fewer.

        Args:
            app_name: the app.
            caller_user_id: only those of this user, as `size_by_user` names it; None means all.
            limit: at most this many, oldest first; None means all.

        Returns:
            How many were cancelled.

        Raises:
            ArgumentError: `caller_user_id` is empty.
            NotFoundError: there is no such app.
        """
        most = count("limit", limit)
        query = {
            "caller_user_id": None if caller_user_id is None else text("caller_user_id", caller_user_id, _NO_USER),
            "limit": None if most is None else str(most),
        }
        return answers.count(await self._ask("DELETE", app_name, query=query), "flushed")

    async def list(
        self, app_name: str, *, state: QueueState | str | None = None, dead: bool = False, limit: int = 100
    ) -> builtins.list[QueuedRequest]:
        """List the requests of an app, newest first.

        Args:
            app_name: the app.
            state: only those in this state: "in_queue", "in_progress" or "completed"; None means any.
            dead: only those that were given up, though another attempt might succeed.
            limit: at most this many, 1 to 1000.

        Raises:
            ArgumentError: there is no such state, or the limit is out of range.
        """
        parameters = answers.list_parameters(state, dead=dead, limit=limit)
        return answers.queued_requests(await self._ask("GET", app_name, "requests", query=parameters))

    async def get(self, app_name: str, request_id: str) -> QueuedRequest:
        """Return one request, its position in the queue and its webhook's deliveries.

        Raises:
            NotFoundError: there is no such request of this app.
        """
        return answers.queued_request(await self._ask("GET", app_name, "requests", _id(request_id)))

    async def cancel(self, app_name: str, request_id: str) -> QueuedRequest:
        """Cancel a request, even in progress. Its app then sees the caller disconnect.

        Returns:
            The request after the call.

        Raises:
            NotFoundError: there is no such request of this app.
            CallError: it was already completed.
        """
        return answers.queued_request(await self._ask("POST", app_name, "requests", _id(request_id), "cancel"))

    async def redrive(self, app_name: str, request_id: str) -> QueuedRequest:
        """Queue a request that was given up again, under the same id.

        Returns:
            The request after the call.

        Raises:
            NotFoundError: there is no such request of this app.
            CallError: it was not given up.
        """
        return answers.queued_request(await self._ask("POST", app_name, "requests", _id(request_id), "redrive"))

    async def redrive_many(self, app_name: str, request_ids: Iterable[str]) -> builtins.list[str]:
        """Queue the given requests again that were given up. They keep their ids.

        Repeating it is safe.

        Returns:
            The ids of the requests that were queued again.

        Raises:
            NotFoundError: there is no such app.
        """
        ids, redriven = texts("request_ids", request_ids), builtins.list[str]()
        for start in range(0, len(ids), answers.MAX_REDRIVEN):
            query = {"ids": ",".join(ids[start : start + answers.MAX_REDRIVEN])}
            redriven += answers.request_ids(await self._ask("POST", app_name, "redrive", query=query))
        return redriven

    async def _ask(
        self, method: str, app_name: str, *parts: str, query: Mapping[str, str | None] | None = None
    ) -> dict[str, JSON]:
        name = checked_name(app_name)
        rest = await self.client.rest()
        if self._owner is None:
            self._owner = answers.owner_name(await rest.ask("GET", "/users/current"))
        answer = await rest.ask(method, answers.queue_path(self._owner, name, *parts), query)
        return answer if isinstance(answer, dict) else {}


def _id(request_id: object) -> str:
    return text("request_id", request_id, "must be an id that is not empty; `fal queue list APP` lists them")
