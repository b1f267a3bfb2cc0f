"""Reads log lines for `client.runners.logs` and `client.apps.logs`: stored ones page by page, new ones as they come."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TYPE_CHECKING

from fal.api.logs import Joint, LogQuestion, Reconnects, history, over_http, stream
from fal_grpc.errors import UnavailableError, UnimplementedError

if TYPE_CHECKING:
    from fal.api.client import SyncServerlessClient
    from fal_grpc.adapter.log import LogEntry


def read(client: SyncServerlessClient, asked: LogQuestion, *, follow: bool) -> Generator[LogEntry, None, None]:
    """The lines, the oldest first."""
    if not follow:
        return _stored(client, asked)
    return _followed(client, asked) if asked.lines is None else _newest_and_on(client, asked)


def _newest_and_on(client: SyncServerlessClient, asked: LogQuestion) -> Generator[LogEntry, None, None]:
    newest = list(_stored(client, asked))
    yield from newest
    joint = Joint(asked, newest)
    for entry in _followed(client, joint.rest, begun=True):
        if joint.is_new(entry):
            yield entry


def _stored(client: SyncServerlessClient, asked: LogQuestion) -> Generator[LogEntry, None, None]:
    controller = client.controller()
    newest = asked.lines is not None and not asked.oldest
    kept: list[LogEntry] = []
    token: str | None = None
    while True:
        try:
            page = controller.list_logs(
                runner_id=asked.runner_id,
                app=asked.app,
                environment_name=asked.environment_name,
                sources=asked.sources,
                search=asked.search,
                request_id=asked.request_id,
                since=asked.since,
                until=asked.until,
                lines=asked.lines,
                oldest_first=not newest,
                page_token=token,
            )
        except UnimplementedError as error:
            over_http(asked, error)
            yield from history(client.rest(), asked)
            return
        if newest:
            kept.extend(page.entries)
        else:
            yield from page.entries
        token = page.next_page_token
        if token is None:
            yield from reversed(kept)
            return


def _followed(
    client: SyncServerlessClient, asked: LogQuestion, *, begun: bool = False
) -> Generator[LogEntry, None, None]:
    """Lines as they come; `begun`: the caller has shown lines already, so that a broken link is no failed first try."""
    controller, reconnects = client.controller(), Reconnects()
    cursor: str | None = None
    while True:
        failure: UnavailableError | None = None
        try:
            for batch in controller.follow_logs(
                runner_id=asked.runner_id,
                app=asked.app,
                environment_name=asked.environment_name,
                sources=asked.sources,
                search=asked.search,
                request_id=asked.request_id,
                cursor=cursor,
                since=asked.since if cursor is None else None,
            ):
                reconnects.succeeded()
                yield from batch.entries
                cursor = batch.cursor or cursor
                if batch.runner_ended is not None:
                    return
        except UnimplementedError as error:
            over_http(asked, error)
            yield from stream(client.rest(), asked)
            return
        except UnavailableError as error:
            failure = error
        time.sleep(reconnects.pause(failure, resumable=begun or cursor is not None))
