"""Restores a deployed app in its runner, which has no `fal` to import.

An app travels in one of two ways. As modules: this file is in the bundle, and `open_bundle` writes the sources to disk
and imports them. By value: the functions here are pickled with the app, and `restore` is the first that is called.
This file imports the standard library only, and nothing else of this project.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import json
import marshal
import os
import pickle
import sys
import tempfile
import traceback
import zipfile
import zlib
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

APP_DIR_VARIABLE = "FAL_APP_DIR"
SOURCE_DIR = "source/"
RUNTIME_DIR = "runtime/"


def open_bundle(path: str) -> object:
    """Import the app of a bundle, and return the callable that a runner calls.

    If the app's file cannot be imported here, the pickle that may be in the bundle takes its place, with a word on
    stderr: what the file needed at the deploy can be missing in a runner.

    Args:
        path: a bundle as `fal.deploy.sources.pack` makes it.
    """
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        base = _base_dir()
        root = _source_root(base, manifest["root"], manifest["context"])
        runtime = base / ".fal"
        for entry in archive.namelist():
            for prefix, directory in ((SOURCE_DIR, root), (RUNTIME_DIR, runtime)):
                if entry.startswith(prefix):
                    target = directory / entry[len(prefix) :]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(archive.read(entry))
        names = set(archive.namelist())
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
    """Return where the app's files are, or a new directory if that cannot be written."""
    given = os.environ.get(APP_DIR_VARIABLE)
    if given and os.access(given, os.W_OK):
        return Path(given)
    return Path(tempfile.mkdtemp(prefix="fal-app-"))


def _source_root(base: Path, root: str | None, context: str | None) -> Path:
    """Return the directory to import from, so that `__file__` and the app's files lie as they did at the deploy.

    Args:
        base: the directory of the app's files.
        root: the import root relative to the files' context directory; None if it is not inside of that.
        context: then, the context directory relative to the import root, if it is inside of that.
    """
    if root is not None:
        return base / root
    found = base / ".fal-source"
    if context is not None and not (found / context).exists():
        (found / context).parent.mkdir(parents=True, exist_ok=True)
        (found / context).symlink_to(base, target_is_directory=True)
    return found


def _search(root: Path, runtime: Path, names: list[str]) -> None:
    """Have the app's modules and this project's found first, as they were at the deploy."""
    for directory in (str(root), str(runtime)):
        if directory in sys.path:
            sys.path.remove(directory)
        sys.path.insert(0, directory)
    importlib.invalidate_caches()
    for name in names:
        loaded = sys.modules.get(name)
        if loaded is not None and not str(getattr(loaded, "__file__", "")).startswith(str(root)):
            del sys.modules[name]
    fal = importlib.import_module("fal")
    fal.__path__ = [*fal.__path__, *_installed("fal", str(runtime))]


def _installed(name: str, runtime: str) -> list[str]:
    """Return where else this project is installed, for an app that has it among its requirements."""
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
    """Have results carry the classes of the app's modules, which their receiver cannot import."""
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


class BundledModules:
    """Imports the modules of this project that came along with a pickle.

    Args:
        modules: for each name, whether it is a package, and its marshalled code.
    """

    def __init__(self, modules: dict[str, tuple[bool, bytes]]) -> None:
        self.modules = modules

    def find_spec(self, name: str, path: object = None, _target: object = None) -> ModuleSpec | None:
        """Return the module's spec, or None if it did not come along.

        If the app's requirements have this project too, its other modules are imported from there.

        Raises:
            ModuleNotFoundError: it is a module of `fal` that is nowhere.
        """
        if name in self.modules:
            is_package = self.modules[name][0]
            spec = ModuleSpec(name, self, origin="bundled", is_package=is_package)  # type: ignore[arg-type]  # a loader
            if is_package:
                installed = [Path(entry) for entry in sys.path if Path(entry, "fal", "app", "targets.py").is_file()]
                spec.submodule_search_locations = [str(entry.joinpath(*name.split("."))) for entry in installed]
            return spec
        if name.startswith("fal.") and not path:
            raise ModuleNotFoundError(
                f"{name} is not there inside of a runner: apps use fal.App and what belongs to it"
            )
        return None

    def create_module(self, _spec: ModuleSpec) -> ModuleType | None:
        """Leave it to the import system."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        exec(marshal.loads(self.modules[module.__name__][1]), module.__dict__)  # noqa: S102, S302 - our own code


def restore(bundle: bytes, payload: bytes, app_dir: str | None) -> object:
    """Return the callable that was pickled.

    Args:
        bundle: the modules of this project that it needs, as `pack_modules` made them.
        payload: a pickle of the callable and of the pydantic models to rebuild.
        app_dir: directory of the app's file, relative to the app's files; None if no files were sent.
    """
    if "fal" not in sys.modules:
        sys.meta_path.insert(0, BundledModules(marshal.loads(zlib.decompress(bundle))))  # noqa: S302
    if app_dir is not None:
        enter_app_dir(app_dir)
    return load_payload(payload)


def load_payload(payload: bytes) -> object:
    """Unpickle a callable, and rebuild its pydantic models."""
    target, models = ProcessUnpickler(io.BytesIO(payload)).load()
    build_models(models)
    return target


class ProcessUnpickler(pickle.Unpickler):
    """Reads a pickle that refers to objects of the process, such as os.environ, by name."""

    def persistent_load(self, name: str) -> object:
        """Return this process's object that "module:attribute.attribute" names."""
        module, _, path = name.partition(":")
        value: object = importlib.import_module(module)
        for part in path.split("."):
            value = getattr(value, part)
        return value


def build_models(models: list[type]) -> None:
    """Have pydantic compile its models again, when all that they refer to is there.

    An unpickled class starts empty. All of them must forget what was compiled from that before one is compiled again,
    since a model's compilation uses those of others.
    """
    for model in models:
        for name in ("__pydantic_core_schema__", "__pydantic_validator__", "__pydantic_serializer__"):
            if name in vars(model):
                delattr(model, name)
        model.__pydantic_complete__ = False  # type: ignore[attr-defined]  # pydantic is not imported here
    for model in models:
        model.model_rebuild(force=True, raise_errors=False)  # type: ignore[attr-defined]  # as above


def enter_app_dir(app_dir: str) -> None:
    """Work in the directory of the app's file and import from there.

    The app's files are in FAL_APP_DIR if that is set, else in /app if there is such a directory, else nowhere.
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
