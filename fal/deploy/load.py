"""Loads an app's file, and finds the app or function in it."""

from __future__ import annotations

import difflib
import importlib.abc
import importlib.machinery
import importlib.util
import keyword
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import decode_source
from pathlib import Path
from types import ModuleType
from typing import NoReturn, TypeAlias

from fal import extras
from fal.app.app import App
from fal.app.functions import Function
from fal.deploy.errors import AppFileError, AppNotFoundError, NoAppFileError

NOT_SOURCES = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages"})
_OWN_PACKAGES = frozenset({"fal", "fal_cli", "fal_grpc", "fal_mcp", "fal_runner", "fal_server"})
# The least similarity, 0 to 1, of a name and the name that it misspells.
_NEAR = 0.7
_IMPORTING = threading.RLock()  # sys.path and sys.modules belong to the whole process


LoggerState: TypeAlias = tuple[int, bool, list[logging.Handler]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedApp:
    """An app or a function, with its file.

    Attributes:
        symbol: the name in the file.
        root: the directory that the code is imported from.
        packages: the top-level package that contains the file, if any; it travels along.
        imported: names of the modules that running the file imported, except those of other threads.
        loggers: changes that running the file made to loggers: level, propagation, and added handlers.
        source: the file's bytes, in the encoding that it declares.
    """

    target: type[App] | Function[..., object]
    symbol: str
    path: Path
    module: ModuleType
    root: Path
    packages: tuple[str, ...]
    imported: tuple[str, ...] = ()
    loggers: Mapping[str, LoggerState] = field(default_factory=dict)
    source: bytes = field(repr=False)

    @property
    def source_code(self) -> str:
        """The text of the file."""
        return decode_source(self.source)


@contextmanager
def load_app(path: Path, symbol: str | None = None) -> Generator[LoadedApp, None, None]:
    """Load an app's file. Its neighbors can be imported inside the `with` block.

    The file runs each time. It may import from its own directory, from the current one and, if it is in a package,
    relatively.

    Args:
        path: the file.
        symbol: the app or function in it; None takes the only app or, if there is no app, the only function.

    Raises:
        AppNotFoundError: the file (NoAppFileError) or the app does not exist, or there are several and none is named.
        AppFileError: the file raised an exception.
    """
    path = path.absolute()
    if not path.is_file():
        raise NoAppFileError(f"there is no file {path}")
    with _IMPORTING:
        yield from _loaded(path, symbol)


def _loaded(path: Path, symbol: str | None) -> Generator[LoadedApp, None, None]:
    root, name = _import_name(path)
    earlier_path, earlier_module = list(sys.path), sys.modules.get(name)
    earlier_dont_write = sys.dont_write_bytecode
    sys.path[:0] = [entry for entry in dict.fromkeys((str(root), str(Path.cwd()))) if entry not in sys.path]
    earlier_loggers, fresh = _loggers(), _FreshModules((root.resolve(), Path.cwd().resolve()))
    sys.meta_path.insert(0, fresh)
    try:
        module = _run(path, name)
        target, found = _find(vars(module), path, symbol)
        package = name.partition(".")[0] if "." in name else None
        yield LoadedApp(
            target=target,
            symbol=found,
            path=path,
            module=module,
            root=root.resolve(),
            packages=(package,) if package else (),
            imported=tuple(sorted(fresh.names() - {name})),
            loggers={name: state for name, state in _loggers().items() if _changed(state, earlier_loggers.get(name))},
            source=path.read_bytes(),
        )
    finally:
        sys.dont_write_bytecode = earlier_dont_write
        sys.path[:] = earlier_path
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not fresh]
        sys.modules.pop(name, None)
        _reset(earlier_loggers)
        _forget(fresh.names(), (root.resolve(), Path.cwd().resolve()))
        if earlier_module is not None:
            sys.modules[name] = earlier_module


class _FreshModules(importlib.abc.MetaPathFinder):
    """Records the modules that this thread imports from now on. Those of the threads that it starts count, too.

    Imports by the program's other threads, and this project's own modules, do not belong to the app.
    The app's neighbors leave no compiled files: Python considers one of the same second and size up to date, and would
    miss a quick edit. Libraries do, because compiling them takes most of a deploy.

    Args:
        places: the directories of the neighbors.
    """

    def __init__(self, places: tuple[Path, ...]) -> None:
        self._places = places
        self._dont_write = sys.dont_write_bytecode
        self._earlier = set(sys.modules)
        self._others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
        self._of_others: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Record the import, and let Python's finders find the module."""
        if threading.get_ident() in self._others:
            self._of_others.add(fullname)
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        # Python compiles the module right after this, before the module's own imports.
        sys.dont_write_bytecode = self._dont_write or (
            spec is not None and spec.origin is not None and is_beside(Path(spec.origin), self._places)
        )
        return None

    def names(self) -> set[str]:
        """Return the names of the recorded modules."""
        came = set(sys.modules) - self._earlier - self._of_others
        return {name for name in came if name.partition(".")[0] not in _OWN_PACKAGES}


def _loggers() -> dict[str, LoggerState]:
    """Return the state of every logger by name. The root's name is ""."""
    every = {"": logging.getLogger(), **logging.getLogger().manager.loggerDict}
    return {
        name: (logger.level, logger.propagate, list(logger.handlers))
        for name, logger in every.items()
        if isinstance(logger, logging.Logger)
    }


def _reset(earlier: Mapping[str, LoggerState]) -> None:
    """Undo the file's changes to loggers, which belong to this process."""
    for name, state in _loggers().items():
        before = earlier.get(name) or (logging.NOTSET, True, [])
        if _changed(state, before):
            logger = logging.getLogger(name) if name else logging.getLogger()
            logger.setLevel(before[0])
            logger.propagate = before[1]
            logger.handlers[:] = before[2]


def _changed(state: LoggerState, earlier: LoggerState | None) -> bool:
    return state != (earlier or (logging.NOTSET, True, []))


def _forget(names: set[str], places: tuple[Path, ...]) -> None:
    """Drop the app's neighbors from sys.modules. The next deploy of this process then runs them again."""
    for name in names:
        file = getattr(sys.modules.get(name), "__file__", None)
        if isinstance(file, str) and is_beside(Path(file), places):
            sys.modules.pop(name, None)


def is_beside(path: Path, places: tuple[Path, ...]) -> bool:
    """Return whether a module's file is the deployer's own. It is in one of these directories, but not installed."""
    resolved = path.resolve()
    if not NOT_SOURCES.isdisjoint(resolved.parts) or resolved.is_relative_to(sys.prefix):
        return False
    return any(resolved.is_relative_to(place) for place in places)


def _import_name(path: Path) -> tuple[Path, str]:
    """Return the directory to import from, and the module's name. The name has its packages, or hides no other one."""
    directory, parts = path.parent, [path.stem]
    while (directory / "__init__.py").is_file():
        parts.insert(0, directory.name)
        directory = directory.parent
    if len(parts) > 1 and all(part.isidentifier() for part in parts):
        return directory, ".".join(parts)
    stem = path.stem
    if stem.isidentifier() and not keyword.iskeyword(stem) and not _is_taken(stem, path):
        return path.parent, stem
    return path.parent, "fal_app_" + re.sub(r"\W", "_", stem)


def _is_taken(name: str, path: Path) -> bool:
    """Return whether the name belongs to another module. That may be here or in every runner."""
    if name in sys.stdlib_module_names or name in _OWN_PACKAGES:
        return True
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return True
    return spec is not None and (spec.origin is None or Path(spec.origin).resolve() != path.resolve())


class _FromSource(importlib.machinery.SourceFileLoader):
    """Compiles the source each time.

    Python recognizes stale compiled files only by whole seconds and size, and would miss an edit right after a deploy.
    It also writes nothing beside the user's file.
    """

    def path_stats(self, path: str) -> NoReturn:
        """Raise, so that no compiled file is read or written."""
        raise OSError(f"{path} is always compiled from its source")


def _run(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path, loader=_FromSource(name, str(path)))
    if spec is None or spec.loader is None:
        raise AppNotFoundError(f"{path} is not a Python file: an app is written in a .py file")
    module = importlib.util.module_from_spec(spec)
    try:
        if "." in name:
            importlib.import_module(name.rpartition(".")[0])
        sys.modules[name] = module
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise AppFileError(_why(path, error)) from error
    return module


def _why(path: Path, error: Exception | SystemExit) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f"{path}, line {lines[-1]}" if lines else str(path)
    if isinstance(error, SyntaxError):
        place = f"{error.filename or path}, line {error.lineno}"
        return f"{place}: {type(error).__name__}: {error.msg}{_pointed_at(error)}"
    hint = _missing_hint(path, error.name) if isinstance(error, ModuleNotFoundError) and error.name else ""
    return f"{where}: {type(error).__name__}: {error}{hint}"


def _pointed_at(error: SyntaxError) -> str:
    """Return the source line and its caret in Python's form. It is empty if the source is unknown."""
    shown = traceback.format_exception_only(error)[1:-1]  # the lines between the file's name and the message
    return "".join(f"\n{line.rstrip()}" for line in shown)


def _missing_hint(path: Path, name: str) -> str:
    """Return a hint for a module that is not found. It may be a misspelt neighbor, or not installed here."""
    if name in extras.APP:
        return ". Writing and deploying apps needs it, and the app extra has it: pip install 'fal-grpc[app]'"
    near = difflib.get_close_matches(name, sorted(_neighbors(path, name)), n=1, cutoff=_NEAR)
    if near:
        return f". Did you mean {near[0]!r}, which is beside it?"
    return ". A deploy runs the app's file here: install it here too, or import it inside of setup()"


def _neighbors(path: Path, name: str) -> set[str]:
    """Return the modules beside a file that can be imported. They are in the package that `name` is in."""
    root, _ = _import_name(path)
    parent, _, _ = name.rpartition(".")
    found: set[str] = set()
    for directory in {place.joinpath(*filter(None, parent.split("."))) for place in (root, Path.cwd())}:
        if directory.is_dir():
            for entry in directory.iterdir():
                module = entry.stem if entry.suffix == ".py" else entry.name
                if entry != path and module.isidentifier() and (entry.suffix == ".py" or _has_sources(entry)):
                    found.add(f"{parent}.{module}" if parent else module)
    return found


def _has_sources(entry: Path) -> bool:
    return entry.is_dir() and entry.name not in NOT_SOURCES and any(entry.glob("*.py"))


def _find(names: dict[str, object], path: Path, symbol: str | None) -> tuple[type[App] | Function[..., object], str]:
    apps = {name: value for name, value in names.items() if _is_app(value)}
    functions = {name: value for name, value in names.items() if isinstance(value, Function)}
    known: dict[str, object] = {**apps, **functions}
    if symbol is None:
        candidates = apps or functions
        if not candidates:
            raise AppNotFoundError(f"{path} has no fal.App and no fal.function")
        if len(candidates) > 1:
            raise AppNotFoundError(
                f"{path} has several: {', '.join(candidates)}. Name one, as in {_shown(path)}::{next(iter(candidates))}"
            )
        symbol = next(iter(candidates))
    elif symbol not in names:
        listed = f": it has {', '.join(known)}" if known else ""
        raise AppNotFoundError(f"{path} has no {symbol}{listed}")
    elif symbol not in known:
        raise AppNotFoundError(f"{symbol} in {path} is neither a fal.App nor a fal.function")
    target = known[symbol]
    assert isinstance(target, Function) or _is_app(target)
    return target, symbol  # type: ignore[return-value]  # the checker does not know what _is_app says


def _is_app(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, App) and value is not App


def _shown(path: Path) -> str:
    """Return the path as a user would type it here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
