"""Generate the client's blocking modules from their asyncio sources, or check them.

The syntax tree gives the positions of changes in the text, so comments and layout survive: `async` and `await` go,
    names
and imports change by the tables below, and ruff sorts imports and wraps lines.
"""

from __future__ import annotations

import argparse
import ast
import io
import itertools
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent

SOURCES = {
    "fal/api/aio/accounts.py": "fal/api/accounts.py",
    "fal/api/aio/apps.py": "fal/api/apps.py",
    "fal/api/aio/audit.py": "fal/api/audit.py",
    "fal/api/aio/client.py": "fal/api/client.py",
    "fal/api/aio/connection.py": "fal/api/connection.py",
    "fal/api/aio/drains.py": "fal/api/drains.py",
    "fal/api/aio/environments.py": "fal/api/environments.py",
    "fal/api/aio/keys.py": "fal/api/keys.py",
    "fal/api/aio/log_reading.py": "fal/api/log_reading.py",
    "fal/api/aio/notices.py": "fal/api/notices.py",
    "fal/api/aio/queue.py": "fal/api/queue.py",
    "fal/api/aio/requests.py": "fal/api/requests.py",
    "fal/api/aio/runners.py": "fal/api/runners.py",
    "fal/api/aio/secrets.py": "fal/api/secrets.py",
    "fal/api/aio/watch_reading.py": "fal/api/watch_reading.py",
    "fal/deploy/deployment_aio.py": "fal/deploy/deployment.py",
    "fal/deploy/upload_aio.py": "fal/deploy/upload.py",
    "fal/http_aio.py": "fal/http.py",
    "fal/rest_aio.py": "fal/rest.py",
    "fal_grpc/aio.py": "fal_grpc/controller.py",
    "fal_grpc/aio_exec_session.py": "fal_grpc/exec_session.py",
    "fal_grpc/aio_shell_session.py": "fal_grpc/shell_session.py",
    "fal_grpc/aio_stubs.py": "fal_grpc/stubs.py",
}
"""Each asyncio source, and the blocking module that is generated from it."""

MODULES = {
    "fal.api.aio": "fal.api",
    "fal.deploy.aio": "fal.deploy",
    "fal.deploy.upload_aio": "fal.deploy.upload",
    "fal.http_aio": "fal.http",
    "fal.rest_aio": "fal.rest",
    "fal_grpc.aio": "fal_grpc.controller",
    "fal_grpc.aio_": "fal_grpc.",
}
"""Modules to import instead; those below them, or whose names begin like a row that ends in "_", change alike."""

NAMES = {
    "AsyncServerlessClient": "SyncServerlessClient",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "aclose": "close",
    "aclosing": "closing",
    "aiter_bytes": "iter_bytes",
    "aread": "read",
    "asynccontextmanager": "contextmanager",
    "asend": "send",
    "async_for_each": "for_each",
    "athrow": "throw",
}
"""Names that change otherwise than by losing `Async`."""

ATTRIBUTES = {
    "grpc.aio.Channel": "grpc.Channel",
    "grpc.aio.StreamStreamMultiCallable": "grpc.StreamStreamMultiCallable",
    "asyncio.Lock": "threading.Lock",
    "asyncio.sleep": "time.sleep",
}
"""Attributes of asyncio and grpc.aio, and their blocking counterparts."""

PHRASES = {
    "Iterate with `async for` for its output": "Iterate over it for its output",
    ", for asyncio": "",
    " for asyncio": "",
    "It belongs to the event loop of its first call.": "It can be used from several threads.",
    "within one event loop, and close it, or use `async with`": "from several threads, and close it, or use `with`",
}
"""What documentation says of the asyncio side alone, and what it says of the blocking one."""

_FIXES = "F401,I,RUF100,C416,SIM117,UP028"
_NOTICE = "# The source of {}: run `make gen` after a change."
_HEADER = "# Generated from {} by scripts/gen_blocking.py; do not edit."
_ASYNC_NAME = re.compile(r"\b(?:Async(?=[A-Z])(\w+)|(\w+)Async(Stub))\b")
_GENERATOR = re.compile(r"\bAsyncGenerator\[(.+?), None\]")
_KEYWORD = re.compile(r"\b(?:async (?=for\b|with\b|def\b)|await )")


class _Edit(NamedTuple):
    start: int
    end: int
    text: str


class _Source:
    """A text, its syntax tree, and its nodes' positions in the text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tree = ast.parse(text)
        self._lines = [line.encode() for line in text.splitlines(keepends=True)]
        self._starts = [0]
        for line in text.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def at(self, line: int, byte: int) -> int:
        """Return the text's index of a byte in a line. Syntax trees count so, with lines from 1."""
        return self._starts[line - 1] + len(self._lines[line - 1][:byte].decode())

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """Return the start and end of a node."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno, node.end_col_offset)

    def lines(self, node: ast.ExceptHandler) -> tuple[int, int]:
        """Return the start and end of a node's lines."""
        assert node.end_lineno is not None
        return self._starts[node.lineno - 1], self._starts[node.end_lineno]

    def token(self, position: tuple[int, int]) -> int:
        """Return the text's index of a character in a line. Tokens count so, with lines from 1."""
        return self._starts[position[0] - 1] + position[1]


def blocking(text: str) -> str:
    """Return the blocking counterpart of an asyncio module's text, not yet formatted."""
    source = _Source(text)
    edits = sorted({*_token_edits(source), *_tree_edits(source)}, key=lambda edit: (edit.start, -edit.end))
    parts, position = [], 0
    for edit in edits:
        if edit.start >= position:  # otherwise a larger edit around it has done it
            parts += [text[position : edit.start], edit.text]
            position = edit.end
    return "".join([*parts, text[position:]])


def _token_edits(source: _Source) -> Iterator[_Edit]:
    tokens = list(tokenize.generate_tokens(io.StringIO(source.text).readline))
    for token, following in itertools.pairwise(tokens):
        start, end = source.token(token.start), source.token(token.end)
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            yield _Edit(start, end, _prose(token.string))
        elif token.type == tokenize.NAME and token.string in ("async", "await"):
            yield _Edit(start, source.token(following.start), "")
        elif token.type == tokenize.NAME and (name := _name(token.string)) != token.string:
            yield _Edit(start, end, name)


def _tree_edits(source: _Source) -> Iterator[_Edit]:
    for node in ast.walk(source.tree):
        match node:
            case ast.Import(names=[ast.alias(name="grpc.aio")]):
                yield _Edit(*source.span(node), "import grpc")
            case ast.Import(names=[ast.alias(name="asyncio")]):
                yield _Edit(*source.span(node), f"import threading\n{' ' * node.col_offset}import time")
            case ast.ImportFrom(module=str(module)):
                start = source.span(node)[0] + len("from ")
                yield _Edit(start, start + len(module), _module(module))
            case ast.Attribute():
                yield from _attribute_edits(source, node)
            case ast.Subscript(value=ast.Name(id="AsyncGenerator"), slice=ast.Tuple()):
                # An asynchronous generator has a type for `asend`; a blocking one also has a type for its result.
                end = source.span(node.slice)[1]
                yield _Edit(end, end, ", None")
            case ast.Subscript(value=ast.Name(id="Awaitable")):
                start, end = source.span(node.slice)
                yield _Edit(*source.span(node), blocking(source.text[start:end]))
            case ast.BinOp(op=ast.BitOr(), right=ast.Subscript(value=ast.Name(id="AsyncIterable"))):
                yield _Edit(source.span(node.left)[1], source.span(node.right)[1], "")
            case ast.ExceptHandler(type=ast.Attribute(value=ast.Name(id="asyncio"), attr="CancelledError")):
                yield _Edit(*source.lines(node), "")
            case ast.Call(func=ast.Attribute(value=ast.Name(id="asyncio"), attr="to_thread")):
                yield from _to_thread_edits(source, node)
            case ast.For() if _only_yields(node):
                start, end = source.span(node.iter)
                yield _Edit(*source.span(node), f"yield from {blocking(source.text[start:end])}")
            case _:
                pass


def _attribute_edits(source: _Source, node: ast.Attribute) -> Iterator[_Edit]:
    path = ast.unparse(node)
    start, end = source.span(node)
    if path in ATTRIBUTES:
        yield _Edit(start, end, ATTRIBUTES[path])
    elif isinstance(node.value, ast.Await):
        # (await x).y no longer needs the parentheses.
        inner = source.span(node.value)
        yield _Edit(source.text.rindex("(", 0, inner[0]), inner[0], "")
        yield _Edit(inner[1], source.text.index(")", inner[1]) + 1, "")


def _to_thread_edits(source: _Source, node: ast.Call) -> Iterator[_Edit]:
    # to_thread(f, x) -> f(x), because a blocking caller already has a thread.
    start, end = source.span(node)
    function = source.span(node.args[0])
    following = [source.span(argument)[0] for argument in node.args[1:]]
    following += [source.at(keyword.lineno, keyword.col_offset) for keyword in node.keywords]
    yield _Edit(start, function[0], "")
    yield _Edit(function[1], min(following, default=end - 1), "(")


def _only_yields(node: ast.For) -> bool:
    """Return whether a loop can become a `yield from`. That is faster, but coroutines lack it."""
    body = node.body[0]
    return (
        len(node.body) == 1
        and not node.orelse
        and isinstance(body, ast.Expr)
        and isinstance(body.value, ast.Yield)
        and body.value.value is not None
        and ast.unparse(body.value.value) == ast.unparse(node.target)
    )


def _name(name: str) -> str:
    return NAMES.get(name) or _ASYNC_NAME.sub(lambda found: found[1] or f"{found[2]}{found[3]}", name)


def _module(name: str) -> str:
    for old, new in MODULES.items():
        if name == old or name.startswith(old if old.endswith("_") else f"{old}."):
            return new + name.removeprefix(old)
    return name


def _prose(text: str) -> str:
    """Return a comment or string with the blocking side's names and words."""
    for old, new in PHRASES.items():
        text = text.replace(old, new)
    text = _KEYWORD.sub("", _GENERATOR.sub(r"Generator[\1, None, None]", text))
    return re.sub(r"\w+", lambda found: _name(found[0]), text)


def generate(name: str) -> str:
    """Return the text of the module that is generated from a source."""
    output = SOURCES[name]
    text = (ROOT / name).read_text()
    notice = _NOTICE.format(output)
    if f"\n{notice}\n" not in text:
        raise SystemExit(f"{name} must have this line after its docstring: {notice}")
    text = blocking(text).replace(f"\n{notice}\n", f"\n{_HEADER.format(name)}\n", 1)
    fixed = _ruff(["check", "--fix-only", "--unsafe-fixes", "--quiet", f"--fixable={_FIXES}"], output, text)
    return _ruff(["format", "--quiet"], output, fixed)


def _ruff(arguments: list[str], name: str, text: str) -> str:
    ruff = Path(sys.executable).parent / "ruff"
    command = [str(ruff), *arguments, f"--stdin-filename={ROOT / name}", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def main() -> int:
    """Generate or check the modules."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if a file would change")
    options = parser.parse_args()
    stale = []
    for name, output in SOURCES.items():
        path, text = ROOT / output, generate(name)
        if not path.exists() or path.read_text() != text:
            stale.append(output)
            if not options.check:
                path.write_text(text)
    if options.check and stale:
        print("\n".join([*(f"differs: {name}" for name in stale), "run: make gen"]), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
