"""`client.queue`: the requests that wait for apps, for those who run the apps."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from fal_grpc.documented import documented_by

if TYPE_CHECKING:
    from fal.api.aio.client import AsyncServerlessClient
    from fal.api.client import SyncServerlessClient
    from fal.queue import QueuedRequest, Queues, QueueState

T = TypeVar("T")


class QueueNamespace:
    """The queues of the apps; `fal queue` on the command line. Reached as `client.queue`.

    Example:
        with SyncServerlessClient() as client:
            print(client.queue.size("my-app"))
            for request in client.queue.list("my-app", dead=True):
                client.queue.redrive("my-app", request.request_id)
    """

    def __init__(self, client: SyncServerlessClient) -> None:
        self.client = client

    @cached_property
    def _queues(self) -> Queues:
        from fal.queue import Queues

        return Queues(self.client.rest())

    def size(self, app_name: str) -> int:
        """How many requests wait for an app.

        Raises:
            NotFoundError: there is no such app.
        """
        return self._queues.size(app_name)

    def size_by_user(self, app_name: str) -> dict[str, int]:
        """How many requests wait for an app, by user: the id of the caller's key, or "public".

        Raises:
            NotFoundError: there is no such app.
        """
        return self._queues.size_by_user(app_name)

    def flush(self, app_name: str, *, caller_user_id: str | None = None) -> int:
        """Cancel all requests that wait for an app; those under way go on.

        Args:
            app_name: the app.
            caller_user_id: only those of this user, as `size_by_user` names it; None means all.

        Returns:
            How many were cancelled.

        Raises:
            NotFoundError: there is no such app.
        """
        return self._queues.flush(app_name, caller_user_id)

    def list(
        self, app_name: str, *, state: QueueState | str | None = None, dead: bool = False, limit: int = 100
    ) -> builtins.list[QueuedRequest]:
        """The requests of an app, the newest first.

        Args:
            app_name: the app.
            state: only those in this state: "in_queue", "in_progress" or "completed"; None means any.
            dead: only those that were given up, though another attempt might help.
            limit: at most so many, 1 to 1000.

        Raises:
            ArgumentError: there is no such state, or the limit is out of range.
        """
        return self._queues.list(app_name, state, dead=dead, limit=limit)

    def get(self, app_name: str, request_id: str) -> QueuedRequest:
        """One request, with its place in the queue and the deliveries of its webhook.

        Raises:
            NotFoundError: there is no such request of this app.
        """
        return self._queues.get(app_name, request_id)

    def cancel(self, app_name: str, request_id: str) -> QueuedRequest:
        """Cancel a request, also one that is being worked on: its app sees the caller go away.

        Returns:
            The request as it then is.

        Raises:
            NotFoundError: there is no such request of this app.
            CallError: it was completed before.
        """
        return self._queues.cancel(app_name, request_id)

    def redrive(self, app_name: str, request_id: str) -> QueuedRequest:
        """Queue a request again that was given up, under the same id.

        Returns:
            The request as it then is.

        Raises:
            NotFoundError: there is no such request of this app.
            CallError: it was not given up.
        """
        return self._queues.redrive(app_name, request_id)


@documented_by(QueueNamespace)
class AsyncQueueNamespace:
    """`QueueNamespace` for asyncio."""

    def __init__(self, client: AsyncServerlessClient) -> None:
        self.client = client
        self._blocking: Queues | None = None

    async def _call(self, ask: Callable[[Queues], T]) -> T:
        """Make an HTTP request, which blocks, in a thread."""
        import asyncio

        def blocking() -> T:
            from fal.queue import Queues

            if self._blocking is None:
                self._blocking = Queues(self.client.rest())
            return ask(self._blocking)

        return await asyncio.to_thread(blocking)

    async def size(self, app_name: str) -> int:
        return await self._call(lambda queues: queues.size(app_name))

    async def size_by_user(self, app_name: str) -> dict[str, int]:
        return await self._call(lambda queues: queues.size_by_user(app_name))

    async def flush(self, app_name: str, *, caller_user_id: str | None = None) -> int:
        return await self._call(lambda queues: queues.flush(app_name, caller_user_id))

    async def list(
        self, app_name: str, *, state: QueueState | str | None = None, dead: bool = False, limit: int = 100
    ) -> builtins.list[QueuedRequest]:
        return await self._call(lambda queues: queues.list(app_name, state, dead=dead, limit=limit))

    async def get(self, app_name: str, request_id: str) -> QueuedRequest:
        return await self._call(lambda queues: queues.get(app_name, request_id))

    async def cancel(self, app_name: str, request_id: str) -> QueuedRequest:
        return await self._call(lambda queues: queues.cancel(app_name, request_id))

    async def redrive(self, app_name: str, request_id: str) -> QueuedRequest:
        return await self._call(lambda queues: queues.redrive(app_name, request_id))
