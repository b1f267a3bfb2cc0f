"""Packs apps as pickles, with this project's modules that serve them.

A runner has the app's requirements, but neither this package nor the app's own file. So the app's classes and
functions are pickled by value (cloudpickle), and `fal.app` travels as code that a finder imports there (see bootstrap).
"""

from __future__ import annotations

import ast
import functools
import importlib
import io
import marshal
import pickle
import sys
import threading
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from importlib.util import decode_source
from pathlib import Path
from types import FunctionType, ModuleType

import cloudpickle  # type: ignore[import-untyped]  # it has none
from cloudpickle import cloudpickle as machinery

from fal.app.functions import Function
from fal.deploy.errors import SerializationError
from fal.deploy.pickler import AppPickler, HeldSecretError

RUNTIME_MODULES = (
    "fal",
    "fal.app",
    "fal.app.api",
    "fal.app.app",
    "fal.app.billing",
    "fal.app.checking",
    "fal.app.clients",
    "fal.app.context",
    "fal.app.endpoints",
    "fal.app.functions",
    "fal.app.gpu",
    "fal.app.health",
    "fal.app.joined_head",
    "fal.app.metrics",
    "fal.app.minimal",
    "fal.app.openapi",
    "fal.app.options",
    "fal.app.realtime",
    "fal.app.retries",
    "fal.app.served",
    "fal.app.server",
    "fal.app.server_log",
    "fal.app.targets",
    "fal.app_http",
    "fal.apps",
    "fal.config",
    "fal.container",
    "fal.distributed",
    "fal.distributed.utils",
    "fal.distributed.worker",
    "fal.exceptions",
    "fal.flags",
    "fal.hosts",
    "fal.http_messages",
    "fal.login",
    "fal.settings",
    "fal.toolkit",
    "fal.toolkit.audio",
    "fal.toolkit.compilation",
    "fal.toolkit.constraints",
    "fal.toolkit.exceptions",
    "fal.toolkit.file",
    "fal.toolkit.file.file",
    "fal.toolkit.file.providers",
    "fal.toolkit.file.providers.fal",
    "fal.toolkit.file.providers.gcp",
    "fal.toolkit.file.providers.local",
    "fal.toolkit.file.providers.r2",
    "fal.toolkit.file.providers.s3",
    "fal.toolkit.file.types",
    "fal.toolkit.file.uploading",
    "fal.toolkit.http",
    "fal.toolkit.image",
    "fal.toolkit.image.image",
    "fal.toolkit.image.nsfw_filter",
    "fal.toolkit.image.safety_checker",
    "fal.toolkit.kv",
    "fal.toolkit.pydantic",
    "fal.toolkit.types",
    "fal.toolkit.utils",
    "fal.toolkit.utils.download_utils",
    "fal.toolkit.utils.endpoint",
    "fal.toolkit.utils.retry",
    "fal.toolkit.utils.setup_utils",
    "fal.toolkit.video",
    "fal.websocket",
    "fal.workflows",
    "fal_grpc",
    "fal_grpc.channel",
    "fal_grpc.compat",
    "fal_grpc.credentials",
    "fal_grpc.errors",
    "fal_grpc.failover",
    "fal_grpc.target",
)
_LOCK = threading.Lock()


class _Bundle:
    """Unpickles as the result of `bootstrap.restore`."""

    def __init__(self, payload: bytes, app_dir: str | None) -> None:
        self._arguments = (pack_modules(), payload, app_dir)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return _bootstrap().restore, self._arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class Pickled:
    """A callable by value.

    Attributes:
        payload: a pickle for `bootstrap.load_payload`, in a process that can import this project.
        missing: modules that it refers to, whose code is in the deployer's directory and does not travel.
    """

    payload: bytes
    missing: tuple[str, ...]

    def definition(self, app_dir: str | None) -> bytes:
        """Return a pickle that any runner can read, with this project's modules.

        Args:
            app_dir: directory of the app's file relative to the app's files; None if none are sent.

        Raises:
            SerializationError: a module that it refers to would be missing there.
        """
        if self.missing:
            raise SerializationError(
                f"the app uses {', '.join(self.missing)}, which a runner does not have: add them to the app's "
                "local_python_modules, or send their files by app_files"
            )
        return bytes(cloudpickle.dumps(_Bundle(self.payload, app_dir)))


def pickled(
    target: object,
    modules: Iterable[str | ModuleType],
    *,
    refuse_modules_in: Path | None = None,
    more: Mapping[str, tuple[bool, str, bytes]] | None = None,
    loggers: Mapping[str, object] | None = None,
) -> Pickled:
    """Pickle a callable by value.

    Args:
        target: the callable; see `fal.app.targets`.
        modules: local modules, or names of them, that travel by value; a package travels completely.
        refuse_modules_in: a directory of code that the runner does not have, unless it travels by value.
        more: modules that can be imported there: whether each is a package, its file and its source.
        loggers: the file's changes to loggers, in the form of `bootstrap._configure_logging`.

    Raises:
        SerializationError: a part of it cannot be pickled, or a module cannot be imported here.
    """
    with _by_value([imported(module) for module in modules]):
        behind = _behind()
        buffer = io.BytesIO()
        pickler = AppPickler(buffer, _bootstrap(), behind)
        try:
            pickler.dump(target)
        except RecursionError as error:
            raise SerializationError(
                "the app is nested too deeply to be pickled: look for a very long chain of objects"
            ) from error
        except Exception as error:
            raise SerializationError(_explained(error, behind)) from error
        missing = _only_here(pickler.referenced, refuse_modules_in)
        ends, known = [buffer.tell()], 0
        for item in [None, *_other_names(behind)]:
            if item is not None:
                pickler.dump(item)
                ends.append(buffer.tell())
            if len(pickler.models) > known:
                pickler.dump(pickler.models[known:])
                ends.append(buffer.tell())
                known = len(pickler.models)
        pickler.dump(_first_that_pickles((loggers or {}, {}), behind))
        header = {
            "modules": {name: _described(module) for name, module in behind.items()},
            "more": {
                name: (is_package, marshal.dumps(compile(source, file, "exec", dont_inherit=True)))
                for name, (is_package, file, source) in (more or {}).items()
                if name not in behind
            },
            "ends": [*ends, buffer.tell()],
        }
    return Pickled(payload=pickle.dumps(header) + buffer.getvalue(), missing=tuple(missing))


def _behind() -> dict[str, ModuleType]:
    """Return the modules that travel by value, packages before their modules."""
    return {name: sys.modules[name] for name in sorted(sys.modules) if _travels(name)}


def _described(module: ModuleType) -> dict[str, object]:
    file = getattr(module, "__file__", None)
    try:
        source = decode_source(Path(file).read_bytes()) if file else None
    except (OSError, SyntaxError, UnicodeDecodeError):  # an unknown encoding is a SyntaxError
        source = None
    return {"package": hasattr(module, "__path__"), "file": file or f"<{module.__name__}>", "source": source}


def _other_names(behind: Mapping[str, ModuleType]) -> list[tuple[str, str, object]]:
    """Return all other names of the modules that can be pickled. Code may look up names in them."""
    every = [
        (module.__name__, name, value)
        for module in behind.values()
        for name, value in vars(module).items()
        if not (name.startswith("__") and name != "__all__")
    ]
    if _pickles(every, behind):
        return every
    return [item for item in every if _pickles(item, behind)]


def _pickles(value: object, behind: Mapping[str, ModuleType]) -> bool:
    try:
        AppPickler(io.BytesIO(), _bootstrap(), behind).dump(value)
    except Exception:  # noqa: BLE001 - whatever it is, it stays here
        return False
    return True


def _first_that_pickles(values: Iterable[object], behind: Mapping[str, ModuleType]) -> object:
    return next((value for value in values if _pickles(value, behind)), None)


def _explained(error: Exception, behind: Mapping[str, ModuleType]) -> str:
    """Return which name of which file cannot be pickled. It also says what to do instead."""
    where = _blamed(behind)
    if isinstance(error, HeldSecretError):
        return f"{where or 'the app'} {error}"
    held = f"{where} cannot be pickled" if where else "the app cannot be pickled"
    return (
        f"{held}: {error}. Objects that live in one process only (connections, files, loaded models) "
        "are best made in setup(), not at the top of the file"
    )


def _blamed(behind: Mapping[str, ModuleType]) -> str:
    """Return the first name that cannot be pickled alone, with its line. It is in the modules that travel by value."""
    for module in behind.values():
        for name, value in _parts_of(module):
            if not _pickles(value, behind):
                kind = "" if isinstance(value, type) else f", a {type(value).__module__}.{type(value).__qualname__}"
                return f"{name} ({_place_of(module, name)}{kind})"
    return ""


def _parts_of(module: ModuleType) -> Iterator[tuple[str, object]]:
    """Yield a module's values by name. Plain ones precede attributes of its classes; classes and functions are last."""
    later: list[tuple[str, object]] = []
    for name, value in list(vars(module).items()):
        if name.startswith("__") or isinstance(value, ModuleType):
            continue
        if isinstance(value, type | FunctionType | Function) and value.__module__ == module.__name__:
            later.append((name, value))
        else:
            yield name, value
    for name, value in later:
        inner: dict[str, object] = dict(vars(value)) if isinstance(value, type) else {}
        yield from ((f"{name}.{key}", part) for key, part in inner.items() if not key.startswith("__"))
    yield from later


def _place_of(module: ModuleType, name: str) -> str:
    """Return the file that sets a name, and its line if found."""
    path = getattr(module, "__file__", None) or module.__name__
    first, _, second = name.partition(".")
    try:
        tree: ast.AST = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return Path(path).name
    for wanted in (first, second):
        for node in ast.walk(tree):
            names = [*_names_set_by(node)]
            if wanted and wanted in names:
                tree = node
                break
    line = getattr(tree, "lineno", None)
    return f"{Path(path).name}, line {line}" if line else Path(path).name


def _names_set_by(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name))
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names)


def _travels(name: str) -> bool:
    sent = machinery.list_registry_pickle_by_value()
    return name in sent or name.partition(".")[0] in sent


def _only_here(names: set[str], directory: Path | None) -> list[str]:
    """Return modules whose code is in `directory` and in no installed package. A runner cannot install them.

    This project's own travel with every app, even from a checkout inside that directory.
    """
    if directory is None:
        return []
    found: list[str] = []
    for name in sorted(names):
        if _travels(name) or name in RUNTIME_MODULES:
            continue
        path = getattr(sys.modules.get(name), "__file__", None)
        if path is None or not Path(path).resolve().is_relative_to(directory):
            continue
        if "site-packages" not in Path(path).parts and name.partition(".")[0] not in _distributed():
            found.append(name)
    return found


@functools.cache
def _distributed() -> frozenset[str]:
    return frozenset(packages_distributions())


def dumped(value: object, what: str) -> bytes:
    """Pickle a value whose classes the runner can import.

    Raises:
        SerializationError: it cannot be pickled.
    """
    try:
        return bytes(cloudpickle.dumps(value))
    except Exception as error:
        raise SerializationError(f"{what} cannot be pickled: {error}") from error


def imported(module: str | ModuleType) -> ModuleType:
    """Return a module of local_python_modules.

    Raises:
        SerializationError: it cannot be imported here.
    """
    if isinstance(module, ModuleType):
        return module
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SerializationError(
            f"local_python_modules has {module!r}, which cannot be imported here: {error}. Give names as in an import, "
            "and deploy from the directory that they are in"
        ) from error


@contextmanager
def _by_value(modules: list[ModuleType]) -> Generator[None, None, None]:
    """Let cloudpickle pickle modules by value inside the `with` block."""
    with _LOCK:
        fresh = [module for module in modules if module.__name__ not in machinery.list_registry_pickle_by_value()]
        named = [module for module in fresh if sys.modules.get(module.__name__) is module]
        for module in named:
            cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            for module in named:
                cloudpickle.unregister_pickle_by_value(module)


@functools.cache
def _bootstrap() -> ModuleType:
    """Return the bootstrap as a module that nobody can import. It is then pickled by value."""
    module = ModuleType("fal_bootstrap")
    exec(marshal.loads(compiled("fal_bootstrap", source_of("fal.deploy.bootstrap"))), module.__dict__)  # noqa: S102, S302 - our own code
    return module


@functools.cache
def pack_modules() -> bytes:
    """Return the modules of this project that an app needs. They are compiled, without this machine's paths."""
    packed: dict[str, tuple[bool, bytes]] = {}
    for name in RUNTIME_MODULES:
        is_package = hasattr(importlib.import_module(name), "__path__")
        packed[name] = (is_package, compiled(name, source_of(name)))
    return zlib.compress(marshal.dumps(packed), 9)


def source_of(name: str) -> str:
    """Return the source of a module of this project."""
    path = importlib.import_module(name).__file__
    assert path is not None
    return Path(path).read_text()


def compiled(name: str, source: str) -> bytes:
    """Return marshalled code without this machine's paths."""
    return marshal.dumps(compile(source, f"<{name}>", "exec", dont_inherit=True, optimize=2))
