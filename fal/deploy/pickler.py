"""The pickler of apps: cloudpickle, extended. It handles common top-level objects and objects that must stay here."""

from __future__ import annotations

import abc
import concurrent.futures
import contextvars
import enum
import functools
import io
import os
import struct
import sys
import threading
import typing
import weakref
from collections.abc import Callable, Collection, Mapping
from types import FunctionType, ModuleType
from typing import TypeAlias, cast

from cloudpickle import cloudpickle as machinery  # type: ignore[import-untyped]  # it has none

_LOCK_TYPE = type(threading.Lock())
_RLOCK_TYPE = type(threading.RLock())
_CACHE_TYPE = type(functools.lru_cache(lambda: None))
_KEY_VARIABLES = ("FAL_KEY", "FAL_KEY_SECRET")
_PROCESS_OBJECTS = (
    *("os:environ", "os:environ._data", "os:environb"),
    *("sys:argv", "sys:orig_argv", "sys:path", "sys:warnoptions"),
    *("sys:modules", "sys:meta_path", "sys:path_hooks", "sys:path_importer_cache"),
    *("sys:stdin", "sys:stdout", "sys:stderr", "sys:__stdin__", "sys:__stdout__", "sys:__stderr__"),
    *("sys:stdin.buffer", "sys:stdout.buffer", "sys:stderr.buffer"),
)
# The parts of a model that pydantic compiles; the runner compiles them itself.
_COMPILED = (
    "__pydantic_core_schema__",
    "__pydantic_validator__",
    "__pydantic_serializer__",
    "__pydantic_parent_namespace__",
    "__pydantic_setattr_handlers__",
)
# cloudpickle's description of a class: constructor, its arguments, attributes, and their setter.
_ClassArguments: TypeAlias = "tuple[type, str, tuple[type, ...], dict[str, object], str, None]"
_ClassState: TypeAlias = "tuple[dict[str, object], dict[str, object]]"
_ClassReduction: TypeAlias = "tuple[object, _ClassArguments, _ClassState, None, None, object]"
_NOT_OF_A_CLASS = ("__dict__", "__weakref__")
_PARAMETERS = tuple(
    getattr(typing, name) for name in ("ParamSpec", "TypeVarTuple", "TypeAliasType") if hasattr(typing, name)
)


class HeldSecretError(Exception):
    """The app holds an object that must stay in the deployer's process."""


class AppPickler(machinery.Pickler):  # type: ignore[misc]  # untyped
    """Pickles an app by value, for `bootstrap.AppUnpickler`.

    Attributes:
        models: pydantic models that travel by value. A runner compiles their validators once everything is loaded,
            because models refer to each other.
        referenced: names of the modules that the other side must be able to import.

    Args:
        file: where the pickle goes.
        bootstrap: the functions that restore objects, see `fal.deploy.bootstrap`.
        modules: the modules that travel by value, by name: the runner creates modules of these names, whose namespaces
            become the globals of their functions.
    """

    def __init__(self, file: io.BytesIO, bootstrap: ModuleType, modules: Mapping[str, ModuleType]) -> None:
        super().__init__(file)
        self.models: list[type] = []
        self.referenced: set[str] = set()
        self._bootstrap = bootstrap
        self._names: dict[int, object] = dict(process_objects())
        restorers: dict[str, object] = bootstrap.RESTORERS
        self._names.update({id(function): ("restore", name) for name, function in restorers.items()})
        for name, module in modules.items():
            self._names[id(module)] = ("module", name)
            self._names[id(module.__dict__)] = ("namespace", name)
            self.globals_ref[id(module.__dict__)] = module.__dict__
        self._modules = modules
        self._secrets = {value: name for name in _KEY_VARIABLES if (value := os.environ.get(name))}
        self._indexes: dict[str, dict[int, str]] = {}

    def persistent_id(self, obj: object) -> object:
        """Pickle by name the process's objects and the app's modules. The objects' content is the deployer's."""
        name = self._names.get(id(obj))
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
        """Return how to pickle `obj`, or NotImplemented for the usual way."""
        if isinstance(obj, type):
            return self._class(obj)
        if isinstance(obj, FunctionType) and obj.__code__.co_filename.endswith("_validate_call.py"):
            # pydantic's compiled validator refers to itself, so the runner compiles it again.
            return sys.modules["pydantic"].validate_call, (obj.raw_function,)  # type: ignore[attr-defined]
        if isinstance(obj, FunctionType | ModuleType):
            reduced = super().reducer_override(obj)
            if reduced is NotImplemented or isinstance(obj, ModuleType):
                self.referenced.add(obj.__name__ if isinstance(obj, ModuleType) else obj.__module__)
            return reduced
        if isinstance(obj, enum.Enum) and self._is_ours(type(obj)):
            return self._member(obj)
        made = self._made_again(obj)
        if made is not None:
            return made
        if isinstance(obj, (typing.NewType, *_PARAMETERS)) and getattr(obj, "__module__", None) in self._modules:
            return self._typing(obj)
        name = self._name_in_its_module(obj)
        if name is not None:
            self.referenced.add(type(obj).__module__)
            return getattr, (sys.modules[type(obj).__module__], name)
        return super().reducer_override(obj)

    def _is_ours(self, cls: type) -> bool:
        return cls.__module__ in self._modules or cls.__module__ == "__main__"

    def _class(self, cls: type) -> object:
        found: object = super().reducer_override(cls)
        if not isinstance(found, tuple) or len(cast("tuple[object, ...]", found)) < 3:
            if found is NotImplemented:
                self.referenced.add(cls.__module__)
            return found  # pyright: ignore[reportUnknownVariableType]  # as cloudpickle's
        if issubclass(cls, enum.Enum):
            return self._enum(cls)
        if _is_model(cls):
            self.models.append(cls)
            # A model that refers to a later one is completed at its first use, by names that do not travel.
            cls.model_rebuild(raise_errors=False)  # type: ignore[attr-defined]  # what _is_model says
            found = super().reducer_override(cls)
        make, arguments, (attributes, slots), *more = cast("_ClassReduction", found)
        state = (_without(attributes, _COMPILED) if _is_model(cls) else attributes, slots)
        maker = self._maker(type(cls))
        if maker is None:
            return (make, arguments, state, *more)
        metaclass, name, _, first, *_ = arguments
        first = first | {key: vars(cls)[key] for key in ("__slots__", "__orig_bases__") if key in vars(cls)}
        return (self._bootstrap.make_class, (maker, metaclass, name, cls.__bases__, first), state, *more)

    def _maker(self, metaclass: type) -> type | None:
        """Return the class whose `__new__` creates an empty class of a metaclass. None if only the metaclass can."""
        for cls in metaclass.__mro__:
            if cls in (type, abc.ABCMeta):
                return cls
            if cls.__module__.partition(".")[0] != "pydantic" and not self._is_ours(cls) and "__new__" in vars(cls):
                return None
        return None

    def _enum(self, cls: type[enum.Enum]) -> object:
        attributes = _without(vars(cls), _NOT_OF_A_CLASS)
        by_value = attributes.get("_value2member_map_")
        members = cls.__members__
        if isinstance(by_value, dict):  # without the combinations of flags, which are created on demand
            named = {id(member) for member in members.values()}
            attributes["_value2member_map_"] = {key: one for key, one in by_value.items() if id(one) in named}
        details = {name: _without(vars(one), ("_inverted_",)) for name, one in members.items() if one.name == name}
        arguments = (type(cls), cls.__name__, cls.__bases__, cls.__module__, cls.__qualname__)
        return (
            self._bootstrap.make_enum,
            arguments,
            (attributes, details),
            None,
            None,
            self._bootstrap.fill_enum,
        )

    def _member(self, member: enum.Enum) -> object:
        cls = type(member)
        if member._name_ not in cls.__members__:
            return cls, (member._value_,)
        base = getattr(cls, "_member_type_", object)
        plain: tuple[object, ...] = ()
        if base is not object:
            given: Callable[[object], tuple[object, ...]] | None = getattr(base, "__getnewargs__", None)
            plain = given(member) if given is not None else tuple(base.__reduce_ex__(member, 2)[1])
        return self._bootstrap.member_of, (cls, member._name_, base, plain)

    def _made_again(self, obj: object) -> object:
        """Return how to create an empty counterpart of a process's object. None for any other object."""
        if isinstance(obj, _LOCK_TYPE):
            return threading.Lock, ()
        if isinstance(obj, _RLOCK_TYPE):
            return threading.RLock, ()
        if isinstance(obj, _CACHE_TYPE):
            kept = obj.cache_parameters()
            return self._bootstrap.cached_again, (obj.__wrapped__, kept["maxsize"], kept["typed"])
        if isinstance(obj, contextvars.ContextVar):
            return self._bootstrap.context_variable, (obj.name, *contextvars.Context().run(_values_of, obj))
        if type(obj) is threading.local:
            return threading.local, (), vars(obj)
        if type(obj) is concurrent.futures.ThreadPoolExecutor:
            return concurrent.futures.ThreadPoolExecutor, (obj._max_workers,)  # noqa: SLF001 - nothing else tells
        if isinstance(obj, io.TextIOWrapper | io.BufferedIOBase | io.RawIOBase) and not isinstance(obj, io.BytesIO):
            raise TypeError("cannot pickle an open file")  # cloudpickle would send its content
        if isinstance(obj, struct.Struct):
            return struct.Struct, (obj.format,)
        if type(obj) is weakref.ref:
            return weakref.ref, (obj(),)
        if isinstance(obj, weakref.WeakValueDictionary | weakref.WeakKeyDictionary):
            return type(obj), (dict(obj),)
        return None

    def _typing(self, obj: object) -> object:
        module = obj.__module__
        if isinstance(obj, typing.NewType):
            return self._bootstrap.named_type, (typing.NewType, (obj.__name__, obj.__supertype__), module)
        name: str = obj.__name__  # type: ignore[attr-defined]  # each of these has one
        if type(obj).__name__ == "TypeAliasType":
            return self._bootstrap.named_type, (type(obj), (name, obj.__value__), module)  # type: ignore[attr-defined]
        return self._bootstrap.named_type, (type(obj), (name,), module)

    def _name_in_its_module(self, obj: object) -> str | None:
        """Return the name of a library's object in its class's module. An example is `dataclasses.MISSING`.

        Such an object is compared by identity, or is a singleton of its process (`random.seed` is a method of one).
        """
        name = type(obj).__module__
        if name == "builtins" or name in self._modules:
            return None
        index = self._indexes.get(name)
        if index is None:
            module = sys.modules.get(name)
            values = vars(module).items() if isinstance(module, ModuleType) else ()
            index = {id(value): key for key, value in values if type(value).__module__ == name}
            self._indexes[name] = index
        return index.get(id(obj))


def process_objects() -> dict[int, str]:
    """Return the objects that represent this process, by identity, named "module:attribute.attribute"."""
    found: dict[int, str] = {}
    for name in _PROCESS_OBJECTS:
        module, _, path = name.partition(":")
        value: object = sys.modules.get(module)
        for part in path.split("."):
            value = getattr(value, part, None)
        if value is not None:
            found.setdefault(id(value), name)
    return found


def _values_of(variable: contextvars.ContextVar[object]) -> list[object]:
    """Return a context variable's value in a list. In an empty context that is its default; no value gives no item."""
    try:
        return [variable.get()]
    except LookupError:
        return []


def _is_copy_of_environ(value: Mapping[object, object]) -> bool:
    here = os.environ
    if len(value) * 2 < len(here) or not here:
        return False
    same = sum(1 for name, text in here.items() if value.get(name) == text)
    return same * 5 >= len(here) * 4


def _is_credentials(value: object) -> bool:
    module = sys.modules.get("fal_grpc.credentials")
    return module is not None and type(value).__module__ == module.__name__ and not isinstance(value, type)


def _is_model(cls: type) -> bool:
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(cls, pydantic.BaseModel)


def _without(attributes: Mapping[str, object], names: Collection[str]) -> dict[str, object]:
    return {name: value for name, value in attributes.items() if name not in names}
