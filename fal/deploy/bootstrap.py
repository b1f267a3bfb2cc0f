"""Restores a deployed app in its runner, which cannot import `fal`.

An app travels in one of two ways. As modules: this file is in the bundle, and `open_bundle` writes the sources to disk
and imports them. By value: the functions here are pickled with the app, and `restore` is called first.
This file imports only the standard library.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import json
import linecache
import logging
import marshal
import os
import pickle
import sys
import tempfile
import traceback
import zipfile
import zipimport
import zlib
from collections.abc import Callable, Generator, Mapping
from contextvars import ContextVar
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

APP_DIR_VARIABLE = "FAL_APP_DIR"
SOURCE_DIR = "source/"
RUNTIME_NAME = "runtime.zip"
"""Archive of this project's modules in a bundle; Python imports from it directly."""
RUNTIME_FILE = ".fal-runtime.zip"
"""Its name in the app's directory; a worker that waited for the job may already have put it there."""
_OURS = frozenset({"fal", "fal_grpc"})


def open_bundle(path: str) -> object:
    """Import a bundle's app, and return the callable that a runner calls.

    If the app's file cannot be imported here, the pickle in the bundle, if any, takes its place, and a line on stderr
    says so: the file may depend on something that existed only at the deploy.

    Args:
        path: a bundle from `fal.deploy.sources.pack`.
    """
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        base = _base_dir()
        root = _source_root(base, manifest["root"], manifest["context"])
        runtime = base / RUNTIME_FILE
        if not runtime.exists():
            runtime.write_bytes(archive.read(RUNTIME_NAME))
        names = archive.namelist()
        made: set[str] = set()
        for entry in names:  # os.path, because a start waits for this
            if entry.startswith(SOURCE_DIR):
                target = os.path.join(root, entry[len(SOURCE_DIR) :])  # noqa: PTH118
                parent = os.path.dirname(target)  # noqa: PTH120
                if parent not in made:
                    os.makedirs(parent, exist_ok=True)  # noqa: PTH103
                    made.add(parent)
                with open(target, "wb") as file:  # noqa: PTH123
                    file.write(archive.read(entry))
        call = archive.read("call") if "call" in names else None
        payload = archive.read("payload") if "payload" in names else None
    _search(root, runtime, manifest["names"])
    if manifest["app_dir"] is not None:
        enter_app_dir(manifest["app_dir"])
    try:
        module = importlib.import_module(manifest["module"])
    except Exception as error:
        if payload is None:
            raise
        _say_by_value(manifest["file"], error)
        for name in [name for name in sys.modules if name.partition(".")[0] in manifest["names"]]:
            del sys.modules[name]
        return load_payload(payload)
    return _target(module, manifest, call)


def _base_dir() -> Path:
    """Return the directory of the app's files. It is a new one if that is not writable."""
    given = os.environ.get(APP_DIR_VARIABLE)
    if given and os.access(given, os.W_OK):
        return Path(given)
    return Path(tempfile.mkdtemp(prefix="fal-app-"))


def _source_root(base: Path, root: str | None, context: str | None) -> Path:
    """Return the directory to import from. `__file__` and the app's files are laid out as at the deploy.

    Args:
        base: the directory of the app's files.
        root: the import root relative to the files' context directory; None if it is outside of that.
        context: if so, the context directory relative to the import root; None if it is outside of that.
    """
    if root is not None:
        return base / root
    found = base / ".fal-source"
    if context is not None and not (found / context).exists():
        (found / context).parent.mkdir(parents=True, exist_ok=True)
        (found / context).symlink_to(base, target_is_directory=True)
    return found


def _search(root: Path, runtime: Path, names: list[str]) -> None:
    """Put the app's modules and this project's first on the import path. That is the order at the deploy."""
    for directory in (str(root), str(runtime)):
        if directory in sys.path:
            sys.path.remove(directory)
        sys.path.insert(0, directory)
    importlib.invalidate_caches()
    for name in names:
        loaded = sys.modules.get(name)
        if loaded is not None and not str(getattr(loaded, "__file__", "")).startswith(str(root)):
            del sys.modules[name]
    sys.meta_path.append(NotInRunners())
    fal = importlib.import_module("fal")
    _take_over(str(runtime))
    fal.__path__ = [*fal.__path__, *_installed("fal", str(runtime))]


def _take_over(runtime: str) -> None:
    """Point modules at the archive's files. The worker imported them before it had the job."""
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        if name.partition(".")[0] not in _OURS or spec is None or spec.origin is None:
            continue
        earlier, found, below = spec.origin.partition(RUNTIME_FILE)
        if found and earlier + found != runtime:
            module.__file__ = spec.origin = runtime + below
            spec.loader = module.__loader__ = zipimport.zipimporter(os.path.dirname(spec.origin))  # noqa: PTH120
            if spec.submodule_search_locations is not None:
                spec.submodule_search_locations = module.__path__ = [f"{runtime}/{name.replace('.', '/')}"]


def _installed(name: str, runtime: str) -> list[str]:
    """Return where else this project is installed. An app may have it among its requirements."""
    entries = [Path(entry) for entry in sys.path if entry != runtime]
    return [str(entry / name) for entry in entries if Path(entry, "fal", "app", "targets.py").is_file()]


def _target(module: ModuleType, manifest: Mapping[str, object], call: bytes | None) -> object:
    targets = importlib.import_module("fal.app.targets")
    found: object = getattr(module, str(manifest["symbol"]))
    kind = manifest["kind"]
    if kind == "app":
        return targets.AppTarget(found, manifest["limit_max_requests"])
    if kind == "served":
        return targets.ServedFunction(found.raw_func)  # type: ignore[attr-defined]  # a fal.function
    _return_by_value(manifest["names"])
    if kind == "setup":
        setup: object = found.options["setup_function"]  # type: ignore[attr-defined]  # as above
        return setup
    arguments, keywords = pickle.loads(call) if call is not None else ((), {})  # noqa: S301 - the deployer's own
    return targets.FunctionTarget(found.raw_func, arguments, keywords)  # type: ignore[attr-defined]  # as above


def _return_by_value(names: object) -> None:
    """Pickle classes of the app's modules by value in results. Their receiver cannot import them."""
    assert isinstance(names, list)
    with contextlib.suppress(ImportError):
        cloudpickle = importlib.import_module("cloudpickle")
        for name in names:
            if name in sys.modules:
                cloudpickle.register_pickle_by_value(sys.modules[name])


def _say_by_value(file: str, error: Exception) -> None:
    traceback.print_exception(error)
    print(  # noqa: T201
        f"fal: {file} cannot be imported in the runner, see above: its objects are used as they were at the deploy",
        file=sys.stderr,
        flush=True,
    )


class NotInRunners:
    """Explains that runners lack a module of this project."""

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        """Raise for a module of `fal` that no other finder has found.

        Raises:
            ModuleNotFoundError: the module belongs to `fal`.
        """
        if name.startswith("fal."):
            raise _not_in_runners(name)


def _not_in_runners(name: str) -> ModuleNotFoundError:
    message = f"{name} is not there inside of a runner: apps use fal.App and what belongs to it"
    return ModuleNotFoundError(message, name=name)


class BundledModules:
    """Imports this project's modules that came with a pickle.

    Args:
        modules: for each name, whether it is a package, and its marshalled code.
    """

    def __init__(self, modules: dict[str, tuple[bool, bytes]]) -> None:
        self.modules = modules

    def find_spec(self, name: str, path: object = None, _target: object = None) -> ModuleSpec | None:
        """Return the module's spec; None if the pickle came without it.

        If the app's requirements include this project, its other modules are imported from there.

        Raises:
            ModuleNotFoundError: it is a module of `fal` that exists nowhere.
        """
        if name in self.modules:
            is_package = self.modules[name][0]
            spec = ModuleSpec(name, self, origin="bundled", is_package=is_package)  # type: ignore[arg-type]  # a loader
            if is_package:
                installed = [Path(entry) for entry in sys.path if Path(entry, "fal", "app", "targets.py").is_file()]
                spec.submodule_search_locations = [str(entry.joinpath(*name.split("."))) for entry in installed]
            return spec
        if name.startswith("fal.") and not path:
            raise _not_in_runners(name)
        return None

    def create_module(self, _spec: ModuleSpec) -> ModuleType | None:
        """Leave it to the import system."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        exec(marshal.loads(self.modules[module.__name__][1]), module.__dict__)  # noqa: S102, S302 - our own code


def restore(bundle: bytes, payload: bytes, app_dir: str | None) -> object:
    """Return the pickled callable.

    Args:
        bundle: the modules of this project that it needs, from `pack_modules`.
        payload: a pickle of the callable and of the pydantic models to rebuild.
        app_dir: directory of the app's file, relative to the app's files; None if no files were sent.
    """
    if "fal" not in sys.modules:
        sys.meta_path.insert(0, BundledModules(marshal.loads(zlib.decompress(bundle))))  # noqa: S302
    if app_dir is not None:
        enter_app_dir(app_dir)
    return load_payload(payload)


def load_payload(payload: bytes) -> object:
    """Unpickle a callable into modules like those at the deploy."""
    file = io.BytesIO(payload)
    header = pickle.load(file)  # noqa: S301 - what this file's other half wrote
    for name, about in header["modules"].items():
        _make_module(name, about)
    if header["more"]:
        sys.meta_path.append(BundledModules(header["more"]))
    feed = Chunk(file)
    unpickler = AppUnpickler(feed)
    first, *others, last = header["ends"]
    start = file.tell()
    feed.end = start + first
    target = unpickler.load()
    models: list[type] = []
    for end in others:
        feed.begin(start + end)
        with contextlib.suppress(Exception):  # an unused name may need something that only the deployer has
            item = unpickler.load()
            if isinstance(item, list):
                models += item
            else:
                module, name, value = item
                sys.modules[module].__dict__.setdefault(name, value)
    build_models(models)
    feed.begin(start + last)
    with contextlib.suppress(Exception):  # as above
        _configure_logging(unpickler.load())
    return target


def _make_module(name: str, about: Mapping[str, object]) -> None:
    """Create an empty module behind the app's objects. Type hints, pickles and imports look up names in it."""
    module = ModuleType(name)
    package = about["package"]
    module.__file__ = str(about["file"])
    module.__package__ = name if package else name.rpartition(".")[0]
    if package:
        module.__path__ = []
    sys.modules[name] = module
    parent = sys.modules.get(name.rpartition(".")[0])
    if parent is not None:
        setattr(parent, name.rpartition(".")[2], module)
    source = about["source"]
    if isinstance(source, str):
        # Without a modification time, linecache never looks at this machine's disk.
        linecache.cache[module.__file__] = (len(source), None, source.splitlines(keepends=True), module.__file__)


def _configure_logging(loggers: Mapping[str, tuple[int, bool, list[logging.Handler]]]) -> None:
    for name, (level, propagates, handlers) in loggers.items():
        logger = logging.getLogger(name) if name else logging.getLogger()
        logger.setLevel(level)
        logger.propagate = propagates
        for handler in handlers:
            logger.addHandler(handler)


class Chunk:
    """A part of a file. The next part is found even if an unpickler failed in the middle of this one."""

    def __init__(self, file: io.BytesIO) -> None:
        self._file = file
        self.end = 0

    def read(self, size: int = -1) -> bytes:
        left = self.end - self._file.tell()
        return self._file.read(left if size < 0 else min(size, left))

    def readline(self) -> bytes:
        return self._file.readline(self.end - self._file.tell())

    def begin(self, end: int) -> None:
        """Continue with the part that follows this one."""
        self._file.seek(self.end)
        self.end = end


class AppUnpickler(pickle.Unpickler):
    """Reads the output of `fal.deploy.pickler`."""

    def persistent_load(self, pid: object) -> object:
        """Return an app's module or namespace, or this process's object by name."""
        if isinstance(pid, tuple):
            kind, name = pid
            if kind == "restore":
                return RESTORERS[name]
            module = sys.modules[name]
            return module.__dict__ if kind == "namespace" else module
        module_name, _, path = str(pid).partition(":")
        value: object = importlib.import_module(module_name)
        for part in path.split("."):
            value = getattr(value, part)
        return value


def make_class(
    maker: type,
    metaclass: type,
    name: str,
    bases: tuple[type, ...],
    attributes: dict[str, object],
) -> type:
    """Create an empty class without the effects of a class statement. Its attributes follow.

    The attributes already include the work of `__init_subclass__` and the metaclass at the deploy.
    """
    with _quiet_subclassing(bases):
        made: type = maker.__new__(metaclass, name, bases, dict(attributes))
    return made


@contextlib.contextmanager
def _quiet_subclassing(bases: tuple[type, ...]) -> Generator[None, None, None]:
    def ignore(_cls: object, /, **_options: object) -> None:
        """Do nothing."""

    # Classes that a program defines and may change; C classes are neither.
    every = [cls for base in bases for cls in base.__mro__ if "__init_subclass__" in vars(cls)]
    changed = {cls: vars(cls)["__init_subclass__"] for cls in every if cls.__flags__ & (3 << 8) == 1 << 9}
    for cls in changed:
        type.__setattr__(cls, "__init_subclass__", classmethod(ignore))
    try:
        yield
    finally:
        for cls, method in changed.items():
            type.__setattr__(cls, "__init_subclass__", method)


def make_enum(metaclass: type, name: str, bases: tuple[type, ...], module: str, qualname: str) -> type:
    """Create an empty enum; `fill_enum` follows."""
    made: type = type.__new__(metaclass, name, bases, {"__module__": module, "__qualname__": qualname})
    return made


def fill_enum(cls: type, state: tuple[dict[str, object], dict[str, dict[str, object]]]) -> type:
    """Restore an enum's attributes, and its members' state. The state is from their `__new__` and `__init__`."""
    attributes, details = state
    for name, value in attributes.items():
        type.__setattr__(cls, name, value)
    for name, values in details.items():
        vars(vars(cls)["_member_map_"][name]).update(values)
    return cls


def member_of(cls: type, name: str, base: type, arguments: tuple[object, ...]) -> object:
    """Return a member of an enum. Create it while the enum is being filled."""
    known = vars(cls).get("_member_map_")
    if isinstance(known, dict) and name in known:
        return known[name]
    made = PENDING.get((cls, name))
    if made is None:
        made = PENDING[cls, name] = base.__new__(cls, *arguments)
    return made


def named_type(kind: Callable[..., object], arguments: tuple[object, ...], module: str) -> object:
    """Create a NewType, ParamSpec or the like in the app's module."""
    made = kind(*arguments)
    with contextlib.suppress(AttributeError):
        made.__module__ = module
    return made


def context_variable(name: str, *default: object) -> ContextVar[object]:
    """Create a context variable; its value at the deploy stays there."""
    return ContextVar(name, default=default[0]) if default else ContextVar(name)


def build_models(models: list[type]) -> None:
    """Let pydantic compile its models again, once all their references exist.

    An unpickled class starts empty. A model's compilation uses those of others, so all of them must discard theirs
    before any is compiled again.
    """
    for model in models:
        for name in ("__pydantic_core_schema__", "__pydantic_validator__", "__pydantic_serializer__"):
            if name in vars(model):
                delattr(model, name)
        model.__pydantic_complete__ = False  # type: ignore[attr-defined]  # pydantic is not imported here
    for model in models:
        model.model_rebuild(force=True, raise_errors=False)  # type: ignore[attr-defined]  # as above


def enter_app_dir(app_dir: str) -> None:
    """Change to the directory of the app's file and import from there.

    The app's files are in FAL_APP_DIR if that is set, otherwise in /app if it exists, otherwise nowhere.
    """
    base = Path(os.environ.get(APP_DIR_VARIABLE) or "/app")
    if not base.is_dir():
        return
    final = (base / app_dir).resolve()
    final.mkdir(parents=True, exist_ok=True)
    for path in (str(final), str(base)):
        if path not in sys.path:
            sys.path.append(path)
    os.chdir(final)


def cached_again(function: Callable[..., object], maxsize: int | None, typed: bool) -> object:
    """Return an empty `functools.lru_cache`: results stay in the process that computed them."""
    return functools.lru_cache(maxsize, typed)(function)


PENDING: dict[tuple[type, str], object] = {}
"""Members of enums that are being filled."""

RESTORERS: dict[str, Callable[..., object]] = {
    "cached_again": cached_again,
    "context_variable": context_variable,
    "fill_enum": fill_enum,
    "make_class": make_class,
    "make_enum": make_enum,
    "member_of": member_of,
    "named_type": named_type,
}
"""The functions that a payload calls, by their names there."""
