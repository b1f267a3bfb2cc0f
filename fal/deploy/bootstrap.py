"""What unpacks a deployed app in its runner. These functions are pickled by value: a runner has no `fal` to import.

They may use the standard library only, and nothing else of this project.
"""

from __future__ import annotations

import functools
import importlib
import io
import marshal
import os
import pickle
import sys
import zlib
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

APP_DIR_VARIABLE = "FAL_APP_DIR"


class BundledModules:
    """Imports the modules that came along.

    Args:
        modules: for each name, whether it is a package, and its marshalled code.
    """

    def __init__(self, modules: dict[str, tuple[bool, bytes]]) -> None:
        self.modules = modules

    def find_spec(self, name: str, path: object = None, _target: object = None) -> ModuleSpec | None:
        """The module's spec, or None for what did not come along.

        Where the app's requirements have this project too, its other modules are imported from there.

        Raises:
            ModuleNotFoundError: a module of `fal` that is not there.
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
        """None: an ordinary module will do."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        exec(marshal.loads(self.modules[module.__name__][1]), module.__dict__)  # noqa: S102, S302 - our own code


def restore(bundle: bytes, payload: bytes, app_dir: str | None) -> object:
    """Make what was sent, ready to be called.

    Args:
        bundle: the modules that it needs of this project, as `pack_modules` made them.
        payload: a pickle of the object and of the pydantic models that have to be built anew.
        app_dir: directory of the app's file, relative to where its files are put; None where no files were sent.
    """
    if "fal" not in sys.modules:
        sys.meta_path.insert(0, BundledModules(marshal.loads(zlib.decompress(bundle))))  # noqa: S302
    if app_dir is not None:
        enter_app_dir(app_dir)
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
    """Have pydantic compile its models anew, now that all that they refer to is there.

    An unpickled class began as an empty one, and what was compiled for that must be forgotten by all of them first,
    since a model's compilation uses that of others.
    """
    for model in models:
        for name in ("__pydantic_core_schema__", "__pydantic_validator__", "__pydantic_serializer__"):
            if name in vars(model):
                delattr(model, name)
        model.__pydantic_complete__ = False  # type: ignore[attr-defined]  # pydantic is not imported here
    for model in models:
        model.model_rebuild(force=True, raise_errors=False)  # type: ignore[attr-defined]  # as above


def enter_app_dir(app_dir: str) -> None:
    """Work in the directory of the app's file and import from there, where the app's files are in place.

    They are in FAL_APP_DIR if that is set, else in /app if there is such a directory, else nowhere.
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
    """A `functools.lru_cache`, empty: what it had kept stays where it was."""
    return functools.lru_cache(maxsize, typed)(function)
