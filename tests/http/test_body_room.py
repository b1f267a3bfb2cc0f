"""The bodies of callers without a key share a limit. Small ones are always accepted."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.faults import ResourceExhausted
from fal_server.http.routes.submission import BodyRoom

MIB = 1024 * 1024


def test_a_second_large_body_is_refused_until_the_first_is_stored() -> None:
    room = BodyRoom(64 * MIB)
    with room.share() as first:
        for size in range(MIB, 61 * MIB, MIB):
            first(size)
        with room.share() as second:
            second(4 * MIB)
            with pytest.raises(ResourceExhausted, match="try again"):
                second(8 * MIB)
        with room.share() as small:
            small(MIB)
    with room.share() as third:
        third(60 * MIB)


@given(st.lists(st.lists(st.integers(1, 9 * MIB), max_size=5), max_size=8))
def test_everything_is_given_back(bodies: list[list[int]]) -> None:
    room = BodyRoom(16 * MIB)
    with ExitStack() as stack:
        for parts in bodies:
            take, size = stack.enter_context(room.share()), 0
            for part in parts:
                size += part
                try:
                    take(size)
                except ResourceExhausted:
                    break
    with room.share() as take:
        take(17 * MIB)
