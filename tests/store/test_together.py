"""Parts of a transaction run together. Each gets its own answers, and alike statements cross at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, MetaData, String, Table, insert, select
from sqlalchemy.dialects import sqlite

from fal_server.store.sql.prepared import Prepared
from fal_server.store.sql.together import Ask, run_together

_TABLE = Table("t", MetaData(), Column("a", String))
_ROW = ("a", _TABLE.c.a)
_STATEMENTS = [Prepared(insert(_TABLE), row=_ROW), Prepared(select(_TABLE), row=_ROW), Prepared(insert(_TABLE))]


class Server:
    """Answers each statement with its place and its row.

    Attributes:
        batches: the places of the statements of each round trip, with their rows.
    """

    dialect = sqlite.dialect()

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, object]]] = []

    async def answers(self, asks: Sequence[Ask]) -> Sequence[object]:
        statements = {ask.statement for ask in asks}
        assert len(statements) == 1
        if None in statements:
            assert len(asks) == 1
            return [await asks[0].alone(cast("Any", self))]
        self.batches.append([(_STATEMENTS.index(cast("Prepared", ask.statement)), ask.parameters["a"]) for ask in asks])
        return self.batches[-1]

    async def execute(self, statement: object, parameters: object = None) -> tuple[object, object]:
        self.batches.append([(-1, parameters)])
        return statement, parameters


async def part(connection: Any, steps: Sequence[int], name: str) -> list[object]:
    found: list[object] = []
    for place in steps:
        statement = _STATEMENTS[place] if place >= 0 else None
        if statement is None:
            found.append(await connection.execute("any", name))
        elif statement is _STATEMENTS[1]:
            found.append(await statement.rows(connection, {"a": name}))
        else:
            found.append(await statement.change(connection, {"a": name}))
    return found


@given(st.lists(st.tuples(st.lists(st.integers(-1, 2), max_size=5), st.sampled_from("abc")), max_size=8))
def test_each_part_gets_its_own_answers_in_order(parts: list[tuple[list[int], str]]) -> None:
    server = Server()
    works = [partial(part, steps=steps, name=name) for steps, name in parts]
    found = asyncio.run(run_together(works, server.dialect, server.answers))
    assert found == [[(n, name) if n >= 0 else ("any", name) for n in steps] for steps, name in parts]
    assert all(len({row for _, row in batch}) == len(batch) for batch in server.batches), "no row twice in one"
    assert all(len(batch) == 1 for batch in server.batches if batch[0][0] in {-1, 2}), "only those that name their row"


async def test_alike_statements_of_many_parts_are_one_round_trip() -> None:
    server = Server()
    works = [partial(part, steps=[0, 1], name=str(number)) for number in range(32)]
    await run_together(works, server.dialect, server.answers)
    assert [len(batch) for batch in server.batches] == [32, 32]


async def test_a_part_that_raises_ends_all_of_them() -> None:
    ended: list[int] = []

    async def fails(connection: Any) -> None:
        await connection.execute("any")
        raise LookupError("no")

    async def waits(connection: Any) -> None:
        try:
            await connection.execute("any")
            await connection.execute("any")
        finally:
            ended.append(1)

    server = Server()
    with pytest.raises(LookupError):
        await run_together([waits, fails, waits], server.dialect, server.answers)
    assert ended == [1, 1]
