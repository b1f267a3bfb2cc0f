"""Reads log lines for `client.runners.logs` and `client.apps.logs`: stored ones page by page, new ones as they come."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from fal.api.logs import Joint, LogQuestion, Reconnects, history, over_http, stream
from fal_grpc.errors import UnavailableError, UnimplementedError

if TYPE_CHECKING:
    from fal.api.client import SyncServerlessClient
    from fal_grpc.adapter.log import LogEntry


_Batches: TypeAlias = "Generator[Sequence[LogEntry], None, None]"


class LogLines(Generator["LogEntry", None, None]):
    """Lines one by one, or as many as have arrived.

    Args:
        batches: the lines, in pieces.
    """

    def __init__(self, batches: _Batches) -> None:
        self._batches = batches
        self._lines = _one_by_one(batches)

    def batches(self) -> _Batches:
        """The lines in the pieces in which they arrive; in place of one by one."""
        return self._batches

    def __iter__(self) -> Generator[LogEntry, None, None]:  # noqa: PYI058 - what the base class says
        """The lines; by a plain generator, which is faster than this object's methods."""
        return self._lines

    def send(self, value: None) -> LogEntry:
        """The next line."""
        return self._lines.send(value)

    def throw(self, *error: Any) -> LogEntry:  # noqa: ANN401 - generators take it in three forms
        """Raise within the reading."""
        return self._lines.throw(*error)

    def close(self) -> None:
        """Stop reading."""
        self._lines.close()
        self._batches.close()


def read(client: SyncServerlessClient, asked: LogQuestion, *, follow: bool) -> LogLines:
    """The lines, the oldest first."""
    if not follow:
        return LogLines(_stored(client, asked))
    return LogLines(_followed(client, asked) if asked.lines is None else _newest_and_on(client, asked))


def _one_by_one(batches: _Batches) -> Generator[LogEntry, None, None]:
    for entries in batches:
        yield from entries


def _newest_and_on(client: SyncServerlessClient, asked: LogQuestion) -> _Batches:
    newest = list(_one_by_one(_stored(client, asked)))
    yield newest
    joint = Joint(asked, newest)
    for entries in _followed(client, joint.rest, begun=True):
        yield [entry for entry in entries if joint.is_new(entry)]


def _stored(client: SyncServerlessClient, asked: LogQuestion) -> _Batches:
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
            yield history(client.rest(), asked)
            return
        if newest:
            kept.extend(page.entries)
        else:
            yield page.entries
        token = page.next_page_token
        if token is None:
            yield kept[::-1]
            return


def _followed(client: SyncServerlessClient, asked: LogQuestion, *, begun: bool = False) -> _Batches:
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
                yield batch.entries
                cursor = batch.cursor or cursor
                if batch.runner_ended is not None:
                    return
        except UnimplementedError as error:
            over_http(asked, error)
            for entry in stream(client.rest(), asked):
                yield (entry,)
            return
        except UnavailableError as error:
            failure = error
        time.sleep(reconnects.pause(failure, resumable=begun or cursor is not None))
