"""Packs an app as modules: its file and its local imports. A runner imports them under their names.

The packages' other files, such as templates, JSON and small weights, travel along.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import io
import json
import os
import sys
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.machinery import SOURCE_SUFFIXES
from pathlib import Path

from fal.deploy.bootstrap import RUNTIME_NAME, SOURCE_DIR
from fal.deploy.errors import SerializationError
from fal.deploy.load import NOT_SOURCES, LoadedApp, is_beside
from fal.deploy.pickling import RUNTIME_MODULES, compiled, source_of

METHOD = "fal_source"
"""The controllers' name for this way, in the list of ways in which runners load code."""

MAX_DATA_BYTES = 32 * 1024**2
"""The most bytes of non-module files that travel with an app, before compression."""
AHEAD_NAME = "ahead"
"""Lists, in the archive of this project's modules, what a worker may import before it has its job."""
_AHEAD = ("fal.app.targets", "fal.app.server", "fal.app.api")
# What FastAPI and uvicorn import once an app has routes and listens, as far as its environment has it.
_AHEAD_OF_LISTENING = (
    "uvloop",
    "uvicorn.protocols.http.auto",
    "uvicorn.lifespan.off",
    "uvicorn.lifespan.on",
    "anyio._backends._asyncio",
    "pydantic.v1",
    "encodings.idna",
)
_EPOCH = (1980, 1, 1, 0, 0, 0)
# Files that are compiled for this machine.
_NOT_DATA = frozenset({".pyc", ".pyo", ".pyd", ".so", ".dylib", ".dll"})
_OURS = frozenset({"fal", "fal_grpc", "fal_mcp", "fal_server", "fal_runner", "fal_cli"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The modules of an app.

    Attributes:
        module: the name of the module that contains the app.
        files: the modules' sources and their packages' other files, by path below the directory to import from.
        paths: the same files on this machine.
        left_out: files of the packages that are too large to send.
    """

    module: str
    files: dict[str, bytes]
    paths: tuple[Path, ...]
    left_out: tuple[Path, ...] = ()

    @property
    def names(self) -> list[str]:
        """The top-level names to import the files by."""
        return sorted({path.partition("/")[0].removesuffix(".py") for path in self.files})

    def modules(self, named: Iterable[str]) -> dict[str, tuple[bool, str, bytes]]:
        """Return the modules of some packages. Each has whether it is itself a package, its file and its source."""
        tops = {name.partition(".")[0] for name in named}
        return {
            path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): (
                path.endswith("/__init__.py"),
                path,
                source,
            )
            for path, source in self.files.items()
            if path.endswith(".py") and path.partition("/")[0].removesuffix(".py") in tops
        }


def collect(loaded: LoadedApp, named: Iterable[str]) -> Sources:
    """Find an app's modules: its file, the named ones, and local imports. Later imports are included.

    Args:
        loaded: the app; its neighbors must still be importable.
        named: `local_python_modules` of the app; a package is sent completely.

    Raises:
        SerializationError: a named module has no source here.
    """
    found = _Collector(loaded)
    found.add_app()
    for name in [*named, *loaded.packages]:
        if not found.add(name, anywhere=True):
            raise SerializationError(
                f"local_python_modules has {name!r}, which has no Python source here: give names as in an import, and "
                "deploy from the directory that they are in"
            )
    for name in loaded.imported:
        found.add(name)
    left_out = found.read_data()
    return Sources(
        module=loaded.module.__name__, files=found.files, paths=tuple(found.paths.values()), left_out=left_out
    )


class _Collector:
    def __init__(self, loaded: LoadedApp) -> None:
        self.files: dict[str, bytes] = {}
        self.paths: dict[str, Path] = {}
        self._data: dict[str, Path] = {}
        self._loaded = loaded
        self._places = tuple(dict.fromkeys((loaded.root, Path.cwd().resolve())))
        self._seen: set[str] = set()

    def add_app(self) -> None:
        name = self._loaded.module.__name__
        self._seen.add(name)
        self._keep(f"{name.replace('.', '/')}.py", self._loaded.path, name, self._loaded.source)

    def add(self, name: str, *, anywhere: bool = False) -> bool:
        """Add a module with its parent packages. Return False if it is not local or not written in Python."""
        if name in self._seen:
            return True
        top = name.partition(".")[0]
        if top in _OURS or (not anywhere and top in sys.stdlib_module_names):
            return False
        path = _file_of(name) or self._beside(name)
        if path is None or path.suffix not in SOURCE_SUFFIXES or not (anywhere or is_beside(path, self._places)):
            return False
        self._seen.add(name)
        if path.name == "__init__.py":
            self._add_package(path.parent, name)
        else:
            self._keep(f"{name.replace('.', '/')}.py", path, name)
        if "." in name:
            self.add(name.rpartition(".")[0], anywhere=anywhere)
        return True

    def _add_package(self, directory: Path, name: str) -> None:
        for path in _files_in(directory):
            relative = path.relative_to(directory).as_posix()
            if path.suffix not in SOURCE_SUFFIXES:
                self._data[f"{name.replace('.', '/')}/{relative}"] = path
                continue
            inner = ".".join([name, *Path(relative).with_suffix("").parts]).removesuffix(".__init__")
            self._seen.add(inner)
            self._keep(f"{name.replace('.', '/')}/{relative}", path, inner)

    def read_data(self) -> tuple[Path, ...]:
        """Read the packages' other files, smallest first; return those beyond the limit."""
        sizes = {relative: path.stat().st_size for relative, path in self._data.items()}
        room = MAX_DATA_BYTES
        left_out: list[Path] = []
        for relative in sorted(sizes, key=lambda relative: (sizes[relative], relative)):
            if sizes[relative] > room:
                left_out.append(self._data[relative])
                continue
            room -= sizes[relative]
            self.files[relative] = self._data[relative].read_bytes()
            self.paths[relative] = self._data[relative]
        return tuple(left_out)

    def _keep(self, relative: str, path: Path, name: str, source: bytes | None = None) -> None:
        if relative in self.files:
            return
        source = path.read_bytes() if source is None else source
        self.files[relative] = source
        self.paths[relative] = path
        is_package = relative.endswith("/__init__.py")
        for imported in _imports(source, name if is_package else name.rpartition(".")[0]):
            if not self.add(imported):
                self.add(imported.rpartition(".")[0])

    def _beside(self, name: str) -> Path | None:
        for place in self._places if name else ():
            base = place.joinpath(*name.split("."))
            for path in (base / "__init__.py", base.with_suffix(".py")):
                if path.is_file():
                    return path
        return None


def _file_of(name: str) -> Path | None:
    """Return the file of a module. It is loaded, or the import system finds it."""
    if not name:
        return None
    loaded = sys.modules.get(name)
    if loaded is not None:
        file = getattr(loaded, "__file__", None)
        return Path(file) if isinstance(file, str) else None
    if "." in name and name.rpartition(".")[0] not in sys.modules:
        return None  # searching for it would import its package
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None


def _files_in(directory: Path) -> Iterator[Path]:
    """Yield the files of a package to send. Hidden ones, such as .env, stay."""
    for parent, directories, files in os.walk(directory):
        directories[:] = sorted(name for name in directories if name not in NOT_SOURCES and not name.startswith("."))
        for path in (Path(parent, file) for file in sorted(files) if not file.startswith(".")):
            if path.suffix not in _NOT_DATA and path.is_file():
                yield path


def _imports(source: bytes, package: str) -> Iterator[str]:
    """Yield names that a source may import, anywhere in it. Some may not be modules."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return  # an unused file of a package may be Python of another version
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".") if package else []
                kept = parts[: len(parts) - node.level + 1]
                base = ".".join([*kept, *([node.module] if node.module else [])])
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")


def pack(
    sources: Sources,
    *,
    symbol: str,
    kind: str,
    file: str,
    root: str | None,
    context: str | None,
    app_dir: str | None,
    limit_max_requests: int | None = None,
    call: bytes | None = None,
    payload: bytes | None = None,
    same_python: bool = True,
) -> bytes:
    """Return the bundle that `bootstrap.open_bundle` reads. The same app always gives the same bytes.

    Args:
        sources: the modules.
        symbol: the app or function in its module.
        kind: "app", "served", "function" or "setup" (a function's setup function).
        file: the name of the app's file, for messages.
        root, context: see `bootstrap._source_root`.
        app_dir: directory of the app's file relative to the app's files; None if none are sent.
        limit_max_requests: end an app after this many requests.
        call: a pickle of a function's arguments.
        payload: a pickle of the callable by value, in case the sources cannot be imported there.
        same_python: whether the runner's Python reads this one's compiled files.
    """
    manifest = {
        "module": sources.module,
        "symbol": symbol,
        "kind": kind,
        "file": file,
        "names": sources.names,
        "root": root,
        "context": context,
        "app_dir": app_dir,
        "limit_max_requests": limit_max_requests,
    }
    entries: dict[str, bytes] = {"manifest.json": json.dumps(manifest, sort_keys=True).encode()}
    entries |= {f"{SOURCE_DIR}{path}": content for path, content in sources.files.items()}
    entries |= {name: content for name, content in (("call", call), ("payload", payload)) if content is not None}
    return _zipped(entries, _runtime_archive(same_python=same_python))


def _zipped(entries: dict[str, bytes], archive: bytes = b"", *, packed: bool = False) -> bytes:
    """Return an archive with additional entries, which may already be compressed."""
    buffer = io.BytesIO(archive)
    method = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(buffer, "a", method) as opened:
        for name in sorted(entries):
            opened.writestr(zipfile.ZipInfo(name, _EPOCH), entries[name], method)
    return buffer.getvalue()


@functools.cache
def _runtime_archive(*, same_python: bool) -> bytes:
    """Return the entries shared by all bundles, cached. Compressing them takes most of the packing time."""
    modules = {**_runtime(same_python=same_python), AHEAD_NAME: "\n".join(_AHEAD + _AHEAD_OF_LISTENING).encode()}
    bootstrap = source_of("fal.deploy.bootstrap")
    entries = {"bootstrap.py": bootstrap.encode()}
    if same_python:
        entries["bootstrap.pyc"] = importlib.util.MAGIC_NUMBER + bytes(12) + compiled("fal_bootstrap", bootstrap)
    return _zipped(entries, _zipped({RUNTIME_NAME: _zipped(modules)}, packed=True))


@functools.cache
def _runtime(*, same_python: bool) -> dict[str, bytes]:
    """Return this project's modules by path. They are compiled, which need no source beside them, or sources."""
    found: dict[str, bytes] = {}
    for name in RUNTIME_MODULES:
        is_package = hasattr(importlib.import_module(name), "__path__")
        path = name.replace(".", "/") + ("/__init__" if is_package else "")
        if same_python:
            found[f"{path}.pyc"] = importlib.util.MAGIC_NUMBER + bytes(12) + compiled(name, source_of(name))
        else:
            found[f"{path}.py"] = source_of(name).encode()
    return found
