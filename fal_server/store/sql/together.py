"""Runs parts of a transaction together. Statements of several parts share a round trip to the server.

A part runs until it waits for a statement. When all parts wait, those that wait for the same statement with other
values are answered at once: 32 parts of two statements take 2 round trips instead of 64.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar, cast

from fal_server.store.sql.prepared import Direct, Parameters, Prepared, Row

if TYPE_CHECKING:
    from sqlalchemy import CursorResult, Dialect, Executable
    from sqlalchemy.ext.asyncio import AsyncConnection

    from fal_server.store.sql.writes import Work

T = TypeVar("T")
Answers: TypeAlias = "Callable[[Sequence[Ask]], Awaitable[Sequence[object]]]"


@dataclass(frozen=True, slots=True)
class Together(Generic[T]):
    """A part whose rows no other such part touches at that time.

    Their statements may therefore be sent in any order.
    """

    work: Work[T]

    def __call__(self, connection: AsyncConnection) -> Awaitable[T]:
        return self.work(connection)


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """A statement that a part waits for.

    Attributes:
        alone: executes it for this part alone.
        statement: a prepared one that can be executed for several parts, or None.
        parameters: of `statement`.
        selects: whether the answer is rows; otherwise it is the number of changed rows.
    """

    alone: Callable[[Direct], Awaitable[object]]
    statement: Prepared | None = None
    parameters: Parameters = field(default_factory=dict)
    selects: bool = False

    def __await__(self) -> Generator[Ask, object, object]:
        return (yield self)


async def run_together(works: Sequence[Work[object]], dialect: Dialect, answers: Answers) -> list[object]:
    """Run parts until all have ended; return each part's result.

    Args:
        works: the parts, none of which waits for anything but its connection.
        dialect: of the database.
        answers: executes asks for the same statement and different rows, or a single ask, and returns each answer.
    """
    connection = cast("AsyncConnection", _Asking(dialect))
    steps = [work(connection).__await__() for work in works]
    results: list[object] = [None] * len(works)
    waiting: dict[int, Ask] = {}

    def go_on(number: int, answer: object) -> None:
        try:
            waiting[number] = cast("Ask", steps[number].send(answer))
        except StopIteration as end:
            results[number] = end.value

    try:
        for number in range(len(works)):
            go_on(number, None)
        while waiting:
            asks, waiting = waiting, {}
            for alike in _alike(asks):
                for number, answer in zip(alike, await answers([asks[one] for one in alike]), strict=True):
                    go_on(number, answer)
    finally:
        for one in steps:
            one.close()
    return results


def _alike(asks: dict[int, Ask]) -> list[list[int]]:
    """Return the numbers of those that wait together, the first one first. They share a statement, but not a row."""
    found: list[list[int]] = []
    latest: dict[tuple[Prepared, bool], tuple[list[int], set[object]]] = {}
    for number, ask in asks.items():
        if ask.statement is None or ask.statement.row is None:
            found.append([number])
            continue
        kind, row = (ask.statement, ask.selects), ask.parameters[ask.statement.row[0]]
        if kind not in latest or row in latest[kind][1]:
            latest[kind] = ([], set())
            found.append(latest[kind][0])
        numbers, rows = latest[kind]
        numbers.append(number)
        rows.add(row)
    return found


class _Asking(Direct):
    """The connection of parts that run together: each statement is an `Ask`."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    async def change(self, statement: Prepared, parameters: Parameters) -> int:
        return cast("int", await Ask(lambda real: real.change(statement, parameters), statement, parameters))

    async def insert_each(self, statement: Prepared, rows: Sequence[Parameters]) -> None:
        await Ask(lambda real: real.insert_each(statement, rows))

    async def rows(self, statement: Prepared, parameters: Parameters) -> Sequence[Row]:
        ask = Ask(lambda real: real.rows(statement, parameters), statement, parameters, selects=True)
        return cast("Sequence[Row]", await ask)

    async def execute(
        self, statement: Executable, parameters: dict[str, object] | list[dict[str, object]] | None = None
    ) -> CursorResult[object]:
        return cast("CursorResult[object]", await Ask(lambda real: real.execute(statement, parameters)))

    async def run_sync(self, work: Callable[..., T], *arguments: object) -> T:
        return cast("T", await Ask(lambda real: real.run_sync(work, *arguments)))
