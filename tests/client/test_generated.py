"""The blocking modules are what the generator makes of their asyncio sources. `fal.api` has no import cycle."""

from __future__ import annotations

import ast
from collections.abc import Container, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from scripts.gen_blocking import ATTRIBUTES, MODULES, NAMES, PHRASES, ROOT, SOURCES, blocking, generate


@pytest.mark.parametrize("source", SOURCES)
def test_what_is_committed_is_what_is_generated(source):
    assert (ROOT / SOURCES[source]).read_text() == generate(source), "run: make gen"


@pytest.mark.parametrize(
    ("asyncio", "wanted"),
    [
        ("async def f() -> None: ...", "def f() -> None: ..."),
        ("x = await f(await g())", "x = f(g())"),
        ("async with a() as b, await c() as d: ...", "with a() as b, c() as d: ..."),
        ("async for x in f(): print(x)", "for x in f(): print(x)"),
        ("xs = [x async for x in f() if await x]", "xs = [x for x in f() if x]"),
        ("y = (await f()).y", "y = f().y"),
        ("y = (await (await f()).g(1)).y", "y = f().g(1).y"),
        ("async def f() -> AsyncGenerator[X, None]: ...", "def f() -> Generator[X, None, None]: ..."),
        ("async def f() -> AsyncGenerator[X]: ...", "def f() -> Generator[X]: ..."),
        ('T = "AsyncGenerator[list[X], None]"', 'T = "Generator[list[X], None, None]"'),
        (
            "def f(x: bytes | Iterable[bytes] | AsyncIterable[bytes] | None): ...",
            "def f(x: bytes | Iterable[bytes] | None): ...",
        ),
        ("class AsyncX(AsyncY): ...", "class X(Y): ..."),
        ("from fal.api.aio.keys import AsyncKeys", "from fal.api.keys import Keys"),
        ("from fal_grpc.aio import AsyncController", "from fal_grpc.controller import Controller"),
        ("import asyncio", "import threading\nimport time"),
        ("sleep = asyncio.sleep", "sleep = time.sleep"),
        ("x = asyncio.Lock()", "x = threading.Lock()"),
        ("x = await asyncio.to_thread(f, 1, b=2)", "x = f(1, b=2)"),
        ("await asyncio.to_thread(f)", "f()"),
        ("async def f():\n    for x in await g():\n        yield x", "def f():\n    yield from g()"),
        ("async def f():\n    for x in g():\n        yield x + 1", "def f():\n    for x in g():\n        yield x + 1"),
        ("def f() -> RunnersAsyncStub: ...", "def f() -> RunnersStub: ..."),
        ("async def __aexit__(self): await self.aclose()", "def __exit__(self): self.close()"),
        ("f()  # await f() of AsyncX", "f()  # f() of X"),
        ("é = await f('ü')  # ñ", "é = f('ü')  # ñ"),
        (
            "try:\n    await f()\nexcept asyncio.CancelledError:\n    # why\n    b()\nfinally:\n    c()",
            "try:\n    f()\nfinally:\n    c()",
        ),
    ],
)
def test_each_construct(asyncio, wanted):
    assert blocking(asyncio) == wanted


def test_every_row_of_the_tables_is_used():
    text = "".join((ROOT / source).read_text() for source in SOURCES)
    for row in (*MODULES, *NAMES, *ATTRIBUTES, *PHRASES):
        assert row in text, row


def imports(path: Path, known: Container[str]) -> Iterator[str]:
    """Yield the modules that a file imports, also those for types only."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in known else node.module for name in names)


def test_fal_api_has_no_import_cycle():
    root = ROOT / "fal" / "api"
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in root.rglob("*.py")
    }
    graph = {name: {other for other in imports(path, files) if other in files} for name, path in files.items()}
    assert {"fal.api.opener", "fal.api.log_reading"} <= graph["fal.api.apps"]
    TopologicalSorter(graph).prepare()
