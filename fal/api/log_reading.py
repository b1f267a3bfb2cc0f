"""Reads log lines for `client.runners.logs` and `client.apps.logs`."""

# Generated from fal/api/aio/log_reading.py by scripts/gen_blocking.py; do not edit.

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeAlias

from fal.api.logs import HttpHistory, LogReconnectPolicy, TailFollowJoin, http_runner_id
from fal_grpc.errors import ArgumentError, UnavailableError, UnimplementedError

if TYPE_CHECKING:
    from datetime import datetime

    from fal.api.opener import Opener
    from fal_grpc.adapter.log import LogEntry, LogQuery


_Batches: TypeAlias = "Generator[Sequence[LogEntry], None, None]"


class LogLines(Generator["LogEntry", None, None]):
    """Log lines, one by one or in the batches that arrive.

    Args:
        batches: the lines.
    """

    def __init__(self, batches: _Batches) -> None:
        self._batches = batches
        self._lines = _one_by_one(batches)

    def batches(self) -> _Batches:
        """Return the lines in batches. Iterate over either the batches or the single lines."""
        return self._batches

    def __iter__(self) -> Generator[LogEntry, None, None]:  # noqa: PYI058 - what the base class says
        # A plain generator is faster than this object's methods.
        return self._lines

    def send(self, value: None) -> LogEntry:
        return self._lines.send(value)

    def throw(self, *error: Any) -> LogEntry:  # noqa: ANN401 - generators take it in three forms
        return self._lines.throw(*error)

    def close(self) -> None:
        self._lines.close()
        self._batches.close()


def read(
    client: Opener, query: LogQuery, *, follow: bool, on_progress: Callable[[datetime], None] | None = None
) -> LogLines:
    """Return the lines, oldest first.

    Args:
        on_progress: called repeatedly with the time that reading stored lines has reached.
    """
    if on_progress is not None and not callable(on_progress):
        raise ArgumentError("on_progress", "must be callable")
    if not follow:
        return LogLines(_stored(client, query, on_progress))
    return LogLines(_followed(client, query) if query.lines is None else _tail_and_follow(client, query))


def _one_by_one(batches: _Batches) -> Generator[LogEntry, None, None]:
    with closing(batches):
        for entries in batches:
            yield from entries


def _tail_and_follow(client: Opener, query: LogQuery) -> _Batches:
    newest = list(_one_by_one(_stored(client, query)))
    yield newest
    join = TailFollowJoin(query, newest)
    with closing(_followed(client, join.rest, resumable=True)) as batches:
        for entries in batches:
            yield [entry for entry in entries if join.is_new(entry)]


def _stored(client: Opener, query: LogQuery, on_progress: Callable[[datetime], None] | None = None) -> _Batches:
    controller = client.controller()
    newest_first: list[LogEntry] = []
    token: str | None = None
    while True:
        try:
            page = controller.list_logs(query, page_token=token)
        except UnimplementedError as error:
            yield _http_history(client, query, error)
            return
        if query.oldest_first:
            yield page.entries
        else:
            newest_first.extend(page.entries)
        token = page.next_page_token
        if page.reached is not None and on_progress is not None:
            on_progress(page.reached)
        if token is None:
            yield newest_first[::-1]
            return


def _followed(client: Opener, query: LogQuery, *, resumable: bool = False) -> _Batches:
    controller, policy = client.controller(), LogReconnectPolicy()
    cursor: str | None = None
    while True:
        failure: UnavailableError | None = None
        try:
            with closing(controller.follow_logs(query, cursor=cursor)) as batches:
                for batch in batches:
                    policy.succeeded()
                    yield batch.entries
                    cursor = batch.cursor or cursor
                    if batch.runner_ended is not None:
                        return
        except UnimplementedError as error:
            with closing(_http_stream(client, query, error)) as lines:
                for line in lines:
                    yield (line,)
            return
        except UnavailableError as error:
            failure = error
        time.sleep(policy.pause(failure, resumable=resumable or cursor is not None))


def _http_history(client: Opener, query: LogQuery, error: UnimplementedError) -> list[LogEntry]:
    runner_id, rest = http_runner_id(query, error), client.rest()
    history = HttpHistory(query, *rest.runner_times(runner_id))
    while history.take(rest.log_page(runner_id, since=history.since, until=history.until, search=history.search)):
        pass
    return history.lines()


def _http_stream(client: Opener, query: LogQuery, error: UnimplementedError) -> Generator[LogEntry, None, None]:
    runner_id, rest = http_runner_id(query, error), client.rest()
    text = (query.search or "").lower()
    with closing(rest.log_stream(runner_id, since=query.since, search=query.search)) as lines:
        for line in lines:
            if text in line.message.lower():  # controllers do not search in this stream
                yield line
