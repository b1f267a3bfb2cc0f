"""Pickling apps by value, together with the few modules of this project that serve them.

A runner has the app's requirements, but neither this package nor the app's own file. So the app's classes and
functions are pickled by value (cloudpickle), and `fal.app` travels as code that a finder imports there (see bootstrap).
"""

from __future__ import annotations

import ast
import functools
import importlib
import io
import marshal
import os
import sys
import threading
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path
from types import FunctionType, ModuleType

import cloudpickle  # type: ignore[import-untyped]  # it has none
from cloudpickle import cloudpickle as machinery

from fal.app.functions import Function
from fal.deploy.errors import SerializationError

RUNTIME_MODULES = (
    "fal",
    "fal.app",
    "fal.app.api",
    "fal.app.app",
    "fal.app.context",
    "fal.app.endpoints",
    "fal.app.functions",
    "fal.app.gpu",
    "fal.app.health",
    "fal.app.metrics",
    "fal.app.openapi",
    "fal.app.options",
    "fal.app.realtime",
    "fal.app.retries",
    "fal.app.server",
    "fal.app.targets",
    "fal.container",
    "fal.exceptions",
    "fal.toolkit",
    "fal.toolkit.downloads",
    "fal.toolkit.exceptions",
    "fal.toolkit.file",
    "fal.toolkit.image",
    "fal.toolkit.kv",
    "fal.toolkit.pydantic",
    "fal.toolkit.uploading",
    "fal.toolkit.utils",
    "fal_grpc",
    "fal_grpc.errors",
)
_LOCK = threading.Lock()
_LOCK_TYPE = type(threading.Lock())
_RLOCK_TYPE = type(threading.RLock())
_CACHE_TYPE = type(functools.lru_cache(lambda: None))


class _Bundle:
    """Unpickles as what `bootstrap.restore` returns."""

    def __init__(self, payload: bytes, app_dir: str | None) -> None:
        self._arguments = (pack_modules(), payload, app_dir)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return _bootstrap().restore, self._arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class Pickled:
    """A callable by value.

    Attributes:
        payload: a pickle that `bootstrap.load_payload` reads, where this project can be imported.
        missing: modules that it refers to, whose code is in the deployer's directory and does not travel.
    """

    payload: bytes
    missing: tuple[str, ...]

    def definition(self, app_dir: str | None) -> bytes:
        """Return a pickle that any runner reads: this project's modules go along.

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


def pickled(target: object, modules: Iterable[str | ModuleType], *, refuse_modules_in: Path | None = None) -> Pickled:
    """Pickle a callable by value.

    Args:
        target: the callable; see `fal.app.targets`.
        modules: local modules, or names of them, that travel by value; with a package, all of it does.
        refuse_modules_in: a directory of code that the runner does not have, unless it travels by value.

    Raises:
        SerializationError: something in it cannot be pickled, or a module cannot be imported here.
    """
    buffer = io.BytesIO()
    pickler = _Pickler(buffer)
    with _by_value([imported(module) for module in modules]):
        try:
            pickler.dump((target, pickler.models))
        except RecursionError as error:
            raise SerializationError(
                "the app is nested too deeply to be pickled: look for a very long chain of objects"
            ) from error
        except Exception as error:
            raise SerializationError(_explained(error)) from error
        missing = _only_here(pickler.referenced, refuse_modules_in)
    return Pickled(payload=buffer.getvalue(), missing=tuple(missing))


def _explained(error: Exception) -> str:
    """Say which name of which file cannot be pickled, and what to do instead."""
    where = _blamed()
    if isinstance(error, HeldSecretError):
        return f"{where or 'the app'} {error}"
    held = f"{where} cannot be pickled" if where else "the app cannot be pickled"
    return (
        f"{held}: {error}. Objects that live in one process only (connections, files, loaded models) "
        "are best made in setup(), not at the top of the file"
    )


def _blamed() -> str:
    """Return the first name of the modules that travel by value that cannot be pickled alone, with its line."""
    for module in [sys.modules[name] for name in sorted(sys.modules) if _travels(name)]:
        for name, value in _parts_of(module):
            try:
                _Pickler(io.BytesIO()).dump(value)
            except Exception:  # noqa: BLE001 - whatever it is, it is the reason
                kind = "" if isinstance(value, type) else f", a {type(value).__module__}.{type(value).__qualname__}"
                return f"{name} ({_place_of(module, name)}{kind})"
    return ""


def _parts_of(module: ModuleType) -> Iterator[tuple[str, object]]:
    """Yield a module's values by name: plain ones first, then what its classes and functions hold, then those."""
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
    """Return the file and line where a name is set, as well as they can be told."""
    path = getattr(module, "__file__", None) or module.__name__
    first, _, second = name.partition(".")
    try:
        tree: ast.AST = ast.parse(Path(path).read_text())
    except (OSError, ValueError):
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
    """Those modules whose code is in `directory` and that no installed package has: a runner cannot install them.

    This package's own travel along with every app, also from a checkout of it inside that directory.
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
    """Have cloudpickle treat modules as code that the other side does not have, for as long as this lasts."""
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
    """The functions of `fal.deploy.bootstrap`, in a module that cannot be imported: so they are pickled by value."""
    module = ModuleType("fal_bootstrap")
    exec(marshal.loads(compiled("fal_bootstrap", source_of("fal.deploy.bootstrap"))), module.__dict__)  # noqa: S102, S302 - our own code
    return module


@functools.cache
def pack_modules() -> bytes:
    """The modules of this project that an app needs in a runner: compiled, without this machine's paths."""
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


class HeldSecretError(Exception):
    """The app holds something of the deployer's process that must stay here."""


_KEY_VARIABLES = ("FAL_KEY", "FAL_KEY_SECRET")
_PROCESS_OBJECTS = (
    *("os:environ", "os:environ._data", "os:environb"),
    *("sys:argv", "sys:orig_argv", "sys:path", "sys:warnoptions"),
    *("sys:modules", "sys:meta_path", "sys:path_hooks", "sys:path_importer_cache"),
    *("sys:stdin", "sys:stdout", "sys:stderr", "sys:__stdin__", "sys:__stdout__", "sys:__stderr__"),
    *("sys:stdin.buffer", "sys:stdout.buffer", "sys:stderr.buffer"),
)


def process_objects() -> dict[int, str]:
    """Return the objects that stand for this process, by identity: "module:attribute.attribute" names them."""
    found: dict[int, str] = {}
    for name in _PROCESS_OBJECTS:
        module, _, path = name.partition(":")
        value: object = sys.modules.get(module)
        for part in path.split("."):
            value = getattr(value, part, None)
        if value is not None:
            found.setdefault(id(value), name)
    return found


def _is_copy_of_environ(value: dict[object, object]) -> bool:
    here = os.environ
    if len(value) * 2 < len(here) or not here:
        return False
    same = sum(1 for name, text in here.items() if value.get(name) == text)
    return same * 5 >= len(here) * 4


def _is_credentials(value: object) -> bool:
    module = sys.modules.get("fal_grpc.credentials")
    return module is not None and type(value).__module__ == module.__name__ and not isinstance(value, type)


class _Pickler(machinery.Pickler):  # type: ignore[misc]  # untyped
    """cloudpickle, taught the objects that apps commonly hold at the top of their file.

    Attributes:
        models: pydantic models that travel by value. Their compiled validators do not travel; they are built anew
            once everything is loaded, since models refer to each other.
        referenced: names of the modules that the other side must be able to import.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.models: list[type] = []
        self.referenced: set[str] = set()
        self._process = process_objects()
        self._secrets = {value: name for name in _KEY_VARIABLES if (value := os.environ.get(name))}

    def persistent_id(self, obj: object) -> str | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Refer to objects of the process by name: their content is the deployer's and never travels."""
        name = self._process.get(id(obj))
        if name is not None:
            return name
        if type(obj) is str:
            if obj in self._secrets:
                raise HeldSecretError(
                    f"holds the value of {self._secrets[obj]} of this machine, which is not sent: read it in setup()"
                )
        elif type(obj) is dict and _is_copy_of_environ(obj):
            raise HeldSecretError(
                "holds a copy of this machine's environment, which is not sent: use os.environ itself, "
                "which is the runner's there"
            )
        elif _is_credentials(obj):
            raise HeldSecretError("holds credentials of this machine, which are not sent: make the client in setup()")
        return None

    def reducer_override(self, obj: object) -> object:  # pyright: ignore[reportIncompatibleMethodOverride]  # inferred there
        """How to pickle `obj`, or NotImplemented for the usual way."""
        if isinstance(obj, _LOCK_TYPE):
            return threading.Lock, ()
        if isinstance(obj, _RLOCK_TYPE):
            return threading.RLock, ()
        if isinstance(obj, _CACHE_TYPE):
            kept = obj.cache_parameters()
            return _bootstrap().cached_again, (obj.__wrapped__, kept["maxsize"], kept["typed"])
        reduced = super().reducer_override(obj)
        if reduced is NotImplemented and isinstance(obj, type | FunctionType | ModuleType):
            self.referenced.add(obj.__name__ if isinstance(obj, ModuleType) else obj.__module__)
        if isinstance(reduced, tuple) and len(reduced) > 2 and isinstance(obj, type) and _is_model(obj):
            self.models.append(obj)
            # A model that refers to a later one is completed at its first use, by names that do not travel.
            obj.model_rebuild(raise_errors=False)  # type: ignore[attr-defined]  # what _is_model says
            return _without_compiled(super().reducer_override(obj))
        return reduced


def _is_model(cls: type) -> bool:
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(cls, pydantic.BaseModel)


_COMPILED = (
    "__pydantic_core_schema__",
    "__pydantic_validator__",
    "__pydantic_serializer__",
    "__pydantic_parent_namespace__",
)


def _without_compiled(reduced: tuple[object, ...]) -> tuple[object, ...]:
    state = reduced[2]
    assert isinstance(state, tuple)
    attributes = {name: value for name, value in state[0].items() if name not in _COMPILED}
    return (*reduced[:2], (attributes, *state[1:]), *reduced[3:])
