"""Print the importable names of modules as JSON. The interpreter of each package runs this.

Called as `python surface_dump.py MODULE...`. Prints {module: {name: description}}, or {module: null} if there is no
such module. A module's names are those that its own text defines; a package's also those that it imports from the
distribution, because it exports them so. With a JSON object of {module: [name...]} on stdin (`python surface_dump.py
-`), the names are those.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import importlib
import importlib.util
import inspect
import json
import os
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

SIMPLE = (str, int, float, bool, bytes, type(None))
OWN = "fal"


def own(name: str | None) -> bool:
    """Return whether a module belongs to the package."""
    return name is not None and (name == OWN or name.startswith((f"{OWN}.", "fal_grpc")))


def shown(value: object) -> object:
    """Return a comparable value. A plain one is itself, and any other is the name of its type."""
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, SIMPLE):
        return value if not isinstance(value, bytes) else value.decode("latin-1")
    if isinstance(value, (list, tuple)):
        return [shown(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((shown(item) for item in value), key=str)
    if isinstance(value, dict):
        return {str(shown(key)): shown(item) for key, item in value.items()}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, type) or inspect.isroutine(value):
        return value.__name__
    if type(value).__name__ == "_HAS_DEFAULT_FACTORY_CLASS":
        return "<factory>"
    return f"<{type(value).__name__}>"


def signature(function: object) -> list[list[object]] | None:
    """Return the parameters: name, kind and default. `**options: Unpack[...]` counts as its keys."""
    try:
        found = inspect.signature(function)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    parameters: list[list[object]] = []
    for each in found.parameters.values():
        default = ["required"] if each.default is each.empty else ["default", shown(each.default)]
        parameters.append([each.name, each.kind.name, default])
        if each.kind is each.VAR_KEYWORD:
            parameters.extend([name, "KEYWORD_ONLY", ["default", "?"]] for name in unpacked(function, each.name))
    return parameters


def unpacked(function: object, name: str) -> list[str]:
    """Return the keys that `**name: Unpack[a TypedDict]` takes."""
    target = inspect.unwrap(getattr(function, "__func__", function))  # type: ignore[arg-type]
    text = getattr(target, "__annotations__", {}).get(name)
    if text is None:
        return []
    space = {**vars(sys.modules[target.__module__]), "Unpack": typing.Unpack}
    try:
        hint = eval(text, space) if isinstance(text, str) else text  # the package's own annotation
    except NameError:
        return []
    inner = typing.get_args(hint)
    return list(getattr(inner[0], "__annotations__", {})) if inner else []


def fields_of(kind: type) -> dict[str, object] | None:
    """Return a dataclass's or model's fields with their defaults. Return the schemas of a model's fields, too."""
    if dataclasses.is_dataclass(kind):
        return {field.name: default_of(field) for field in dataclasses.fields(kind) if not field.name.startswith("_")}
    models = getattr(kind, "model_fields", None)
    if isinstance(models, dict):
        try:
            properties = kind.model_json_schema().get("properties", {})  # type: ignore[attr-defined]
        except Exception:  # noqa: BLE001  # a model without a schema still has fields
            properties = {}
        return {
            name: [*default_of_model(field), schema(properties.get(field.alias or name))]
            for name, field in models.items()
        }
    if typing.is_typeddict(kind):
        return {name: name in kind.__required_keys__ for name in sorted(kind.__annotations__)}  # type: ignore[attr-defined]
    return None


def default_of_model(field: Any) -> list[object]:
    """Return the default of a model's field."""
    return ["required"] if field.is_required() else ["default", shown(field.get_default(call_default_factory=True))]


def default_of(field: Any) -> object:
    """Return the default of a dataclass's field."""
    if field.default is not dataclasses.MISSING:
        return ["default", shown(field.default)]
    return ["required"] if field.default_factory is dataclasses.MISSING else ["default", shown(field.default_factory())]


def schema(value: object) -> object:
    """Return a JSON schema without texts for people."""
    if isinstance(value, dict):
        return {key: schema(item) for key, item in value.items() if key not in ("title", "description", "examples")}
    return [schema(item) for item in value] if isinstance(value, list) else value


def members_of(kind: type) -> dict[str, object]:
    """Return a class's methods and plain attributes that the package defines."""
    found: dict[str, object] = {}
    known = fields_of(kind) or {}
    for base in reversed(kind.__mro__):
        if not own(base.__module__):
            continue
        for name, value in vars(base).items():
            if name.startswith("_") and name not in ("__call__", "__iter__", "__enter__", "__exit__", "__aenter__"):
                continue
            if name in known or name in ("model_config", "model_fields", "model_computed_fields"):
                continue
            found[name] = describe_member(kind, name, value)
    return found


def describe_member(kind: type, name: str, value: object) -> dict[str, object]:
    """Describe an attribute of a class."""
    if isinstance(value, property) or type(value).__name__ == "cached_property":
        return {"kind": "property"}
    if isinstance(value, (classmethod, staticmethod)):
        return {"kind": type(value).__name__, "signature": signature(getattr(kind, name))}
    if inspect.isfunction(value):
        return {
            "kind": "async method" if inspect.iscoroutinefunction(value) else "method",
            "signature": signature(value),
        }
    if isinstance(value, type):
        return {"kind": "class"}
    return {"kind": "attribute", "value": shown(value)}


def describe(value: object) -> dict[str, object]:
    """Describe a name of a module."""
    if isinstance(value, type):
        if issubclass(value, enum.Enum):
            return {"kind": "enum", "id": identity(value), "fields": {one.name: shown(one.value) for one in value}}
        described: dict[str, object] = {
            "kind": "exception" if issubclass(value, BaseException) else "class",
            "id": identity(value),
            "bases": sorted({name for base in value.__mro__[1:] if counts(base) for name in called(base)}),
            "fields": fields_of(value),
            "members": members_of(value),
        }
        if not typing.is_typeddict(value):
            described["signature"] = signature(value)
        return described
    if inspect.isroutine(value) or isinstance(value, types.FunctionType):
        kind = "async function" if inspect.iscoroutinefunction(value) else "function"
        return {"kind": kind, "id": identity(value), "signature": signature(value)}
    if typing.get_origin(value) is typing.Literal:
        return {"kind": "literal", "value": sorted(map(str, typing.get_args(value)))}
    if typing.get_origin(value) is not None or isinstance(value, typing.TypeVar):
        return {"kind": "type"}
    return {"kind": "value", "value": shown(value)}


def counts(base: type) -> bool:
    """Return whether a base class matters to users. The package's own matter, and the standard exceptions."""
    return own(base.__module__) or (issubclass(base, Exception) and base is not Exception)


def called(kind: type) -> set[str]:
    """Return a class's own name, and its names in the package's modules."""
    modules = [module for name, module in [*sys.modules.items()] if own(name)]
    return {kind.__name__, *(name for module in modules for name, value in vars(module).items() if value is kind)}


def identity(value: Any) -> str:
    """Return where an object is defined."""
    return f"{value.__module__}:{value.__qualname__}"


def names_of(module: types.ModuleType) -> list[str]:
    """Return a module's public names. Its text defines them, or a package exports them."""
    declared = getattr(module, "__all__", None)
    found = set(declared) if declared is not None else set(defined(module))
    return sorted(name for name in found if not name.startswith("_") and hasattr(module, name))


def defined(module: types.ModuleType) -> Iterator[str]:
    """Return the names that a module's top level binds. `if` and `try` count, too."""
    if module.__file__ is None:  # a folder without a source file
        return
    tree = ast.parse(inspect.getsource(module))
    package = hasattr(module, "__path__")
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        statement = waiting.pop()
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield statement.name
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            yield from (node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name))
        elif isinstance(statement, ast.ImportFrom) and package:
            yield from shown_by(module, statement)
        elif isinstance(statement, ast.Try):
            waiting += [*statement.body, *statement.orelse, *(one for each in statement.handlers for one in each.body)]
        elif isinstance(statement, ast.If):
            waiting += [*statement.body, *statement.orelse]


def shown_by(package: types.ModuleType, statement: ast.ImportFrom) -> Iterator[str]:
    """Return the names that a package imports from the distribution's own modules."""
    source = importlib.util.resolve_name("." * statement.level + (statement.module or ""), package.__name__)
    if own(source):
        for alias in statement.names:
            if alias.name == "*":
                yield from names_of(importlib.import_module(source))
            elif not isinstance(getattr(package, alias.name, None), types.ModuleType):
                yield alias.asname or alias.name


def main() -> None:
    """Print the surface of each module."""
    asked: dict[str, list[str] | None] = dict.fromkeys(sys.argv[1:])
    if sys.argv[1:] == ["-"]:
        asked = json.load(sys.stdin)
    surface: dict[str, object] = {}
    for name, wanted in asked.items():
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not own(error.name):
                raise
            surface[name] = None
            continue
        names = names_of(module) if wanted is None else [each for each in wanted if has(module, each)]
        surface[name] = {each: describe(getattr(module, each)) for each in names}
    json.dump(surface, sys.stdout)


def has(module: types.ModuleType, name: str) -> bool:
    """Return whether a module has a name, including lazy ones."""
    try:
        getattr(module, name)
    except (AttributeError, ImportError):
        return False
    return True


if __name__ == "__main__":
    main()
