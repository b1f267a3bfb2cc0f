"""The client's few HTTP calls, for asyncio: app files, queues and teams. Also logs if a controller lacks our rpcs."""

# The source of fal/rest.py: run `make gen` after a change.

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import datetime

from fal.http_aio import AsyncHttpClient, AsyncHttpStream
from fal.http_messages import HttpRequest
from fal.rest_messages import address, log_entry, log_page, objects, parse_time, segment
from fal_grpc.adapter.log import LogEntry, LogPage
from fal_grpc.adapter.values import JSON
from fal_grpc.channel import ChannelOptions, check_secure
from fal_grpc.credentials import Credentials
from fal_grpc.errors import UnknownError
from fal_grpc.target import parse_target


class AsyncRest:
    """The HTTP side of a controller.

    Args:
        url: the base address, without a slash at the end.
        credentials: sent with each request.
        options: the deadline, and the certificates to trust.
        account_url: the base address for accounts and app files, which FAL_REST_HOST overrides; None means `url`.

    Raises:
        InsecureChannelError: credentials would go to another machine in plaintext.
    """

    def __init__(
        self, url: str, credentials: Credentials, options: ChannelOptions, *, account_url: str | None = None
    ) -> None:
        self._url = url
        self._account_url = account_url or url
        for base in (self._url, self._account_url):
            check_secure(parse_target(base, source="REST address"), credentials)
        self._credentials = credentials
        self._options = options
        self._client = AsyncHttpClient(options)

    async def send(
        self, method: str, path: str, body: bytes, content_type: str, *, timeout_seconds: float, own: bool = False
    ) -> JSON:
        """Send a body.

        Args:
            method: the HTTP method, for example "POST".
            path: starts with a slash.
            body: the bytes.
            content_type: the media type of the body.
            timeout_seconds: how long each step of the exchange may take.
            own: send it to the controller itself even if FAL_REST_HOST is set.

        Returns:
            The JSON of the response; None if it is empty.

        Raises:
            CallError: the controller refused, or cannot be reached.
        """
        base = self._url if own else self._account_url
        return await self._json(
            self._request(
                method, f"{base}{path}", body=body, content_type=content_type, timeout_seconds=timeout_seconds
            )
        )

    async def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | None] | None = None,
        *,
        timeout_seconds: float | None = None,
    ) -> JSON:
        """Make a request without a body to the controller itself.

        Args:
            method: such as "GET".
            path: starts with a slash.
            query: parameters; those that are None are left out.
            timeout_seconds: how long each step may take; None means the deadline of the options.

        Raises:
            CallError: the controller refused, or cannot be reached.
        """
        return await self._json(
            self._request(method, address(self._url, path, query or {}), timeout_seconds=timeout_seconds)
        )

    @asynccontextmanager
    async def receive(self, path: str, *, timeout_seconds: float) -> AsyncGenerator[AsyncHttpStream]:
        """Open a path of the controller to read its content in chunks. Raises the errors of `send`."""
        request = self._request("GET", f"{self._url}{path}", accept="*/*", timeout_seconds=timeout_seconds)
        async with self._client.stream(request) as stream:
            yield stream

    async def runner_times(self, runner_id: str) -> tuple[datetime | None, datetime | None]:
        """Return when a runner started and ended. None for an event that has not happened.

        Raises:
            NotFoundError: there is no such runner.
        """
        answer = await self.ask("GET", f"/runners/{segment(runner_id)}")
        fields = answer if isinstance(answer, dict) else {}
        return parse_time(fields.get("started_at")), parse_time(fields.get("ended_at"))

    async def log_page(
        self,
        runner_id: str,
        *,
        since: datetime | None,
        until: datetime | None,
        search: str | None,
        page_size: int = 1000,
    ) -> LogPage:
        """Return stored lines of a runner, newest first. The token is the next page's `until`."""
        query = {"job_id": runner_id, "page_size": str(page_size), "search": search, "since": since, "until": until}
        request = self._request("POST", address(self._url, "/logs/history", query), body=b"")
        return log_page(await self._json(request), runner_id)

    async def log_stream(
        self, runner_id: str, *, since: datetime | None, search: str | None
    ) -> AsyncGenerator[LogEntry]:
        """Yield lines of a runner as they are written. It continues until the controller ends the stream.

        Raises:
            CallError: the controller refused, or reported an error within the stream.
        """
        request = self._request(
            "POST",
            address(self._url, "/logs/stream", {"job_id": runner_id, "search": search, "since": since}),
            body=b"",
            accept="text/event-stream",
            timeout_seconds=math.inf,
        )
        async with self._client.stream(request) as stream, aclosing(stream.events()) as events:
            async for event in events:
                if event.name == "error":
                    raise UnknownError(f"The log stream of runner {runner_id} ended with an error: {event.data}")
                try:
                    item: JSON = json.loads(event.data)
                except ValueError:
                    continue  # the published client also skips lines that are not JSON
                yield log_entry(item, runner_id)

    async def teams(self) -> list[dict[str, JSON]]:
        """Return the controller's description of the teams of a login token's user."""
        return objects(await self._json(self._request("GET", f"{self._account_url}/users/teams")))

    async def user(self) -> dict[str, JSON]:
        """Return the controller's description of the credentials' account."""
        url = f"{self._account_url}/users/current"
        return next(iter(objects([await self._json(self._request("GET", url))])))

    async def _json(self, request: HttpRequest) -> JSON:
        return (await self._client.send(request)).json()

    def _request(
        self,
        method: str,
        url: str,
        *,
        body: bytes | None = None,
        content_type: str | None = None,
        accept: str = "application/json",
        timeout_seconds: float | None = None,
    ) -> HttpRequest:
        headers = {"Accept": accept, **self._credentials.headers()}
        if content_type is not None:
            headers["Content-Type"] = content_type
        seconds = self._options.deadline_seconds if timeout_seconds is None else timeout_seconds
        return HttpRequest(
            method=method,
            url=url,
            content=body,
            headers=headers,
            timeout_seconds=None if seconds == math.inf else seconds,
        )
