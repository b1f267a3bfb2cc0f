"""Reads watched lists for `client.runners.watch` and `client.apps.watch`."""

# Generated from fal/api/aio/watch_reading.py by scripts/gen_blocking.py; do not edit.

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

from fal.api.watches import POLL_SECONDS, WatchedList
from fal_grpc.errors import UnavailableError, UnimplementedError

if TYPE_CHECKING:
    from fal.api.opener import Opener
    from fal_grpc.adapter.changes import Changes
    from fal_grpc.controller import Controller

T = TypeVar("T")


def read(
    client: Opener,
    watched: WatchedList[T],
    stream: Callable[[Controller, str], Generator[Changes[T], None, None]],
    fetch: Callable[[Controller], list[T]],
) -> Generator[list[T], None, None]:
    """Yield the complete list at each change. It is also yielded at least about every two seconds.

    Args:
        client: opens the controller.
        watched: applies the changes.
        stream: watches from a version on.
        fetch: returns the list, for controllers without watches.
    """
    controller = client.controller()
    while True:
        failure: UnavailableError | None = None
        try:
            with closing(stream(controller, watched.version)) as messages:
                for changes in messages:
                    if watched.take(changes):
                        yield watched.items()
        except UnimplementedError:
            break
        except UnavailableError as error:
            failure = error
        time.sleep(watched.pause(failure))
    while True:
        yield fetch(controller)
        time.sleep(POLL_SECONDS)
