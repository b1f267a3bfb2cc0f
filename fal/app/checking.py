"""Checks and converts JSON values by type hints. The server without FastAPI uses it.

Errors have pydantic's form, so that callers see the same from both servers. Models of any pydantic version check
themselves.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Literal, TypeAlias

Place: TypeAlias = "tuple[str | int, ...]"
_TRUE = frozenset({"true", "1", "on", "yes", "t", "y"})
_FALSE = frozenset({"false", "0", "off", "no", "f", "n"})
_ARRAYS: dict[object, Callable[[list[object]], object]] = {list: list, set: set, frozenset: frozenset}
_SEQUENCES = (list, Sequence, typing.Sequence)
_MAPPINGS = (dict, Mapping, typing.Mapping)
# Of a TypedDict's fields, in typing and in typing_extensions.
_QUALIFIERS = ("Required", "NotRequired", "ReadOnly")


class ValueRefusedError(Exception):
    """A value does not fit its type.

    Attributes:
        errors: the mismatches, each with `type`, `loc`, `msg` and `input`.
    """

    def __init__(self, errors: list[dict[str, object]]) -> None:
        super().__init__("; ".join(f"{error['loc']}: {error['msg']}" for error in errors))
        self.errors = errors


def refused(kind: str, place: Place, message: str, value: object) -> ValueRefusedError:
    """Return the error for one value."""
    return ValueRefusedError([{"type": kind, "loc": list(place), "msg": message, "input": value}])


def missing(place: Place, parent: object) -> ValueRefusedError:
    """Return the error for a missing value."""
    return refused("missing", place, "Field required", parent)


def is_scalar(hint: object) -> bool:
    """Return whether FastAPI takes a parameter of this type from the query. It takes others from the body."""
    hint = _plain(hint)
    if _is_union(hint):
        return all(is_scalar(part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is Literal or hint in (None, type(None)):
        return True
    if not isinstance(hint, type) or typing.get_origin(hint) is not None:
        return hint is typing.Any
    containers = (dict, list, set, frozenset, tuple)
    return not (issubclass(hint, containers) or dataclasses.is_dataclass(hint) or _is_model(hint))


def check(hint: object, value: object, place: Place) -> object:
    """Check a value against its type, and return it converted.

    An unknown type checks nothing.

    Args:
        hint: the type.
        value: a value from JSON or a query.
        place: its location, for the error.

    Raises:
        ValueRefusedError: it does not fit.
    """
    hint = _plain(hint)
    if _is_union(hint):
        return _check_union(typing.get_args(hint), value, place)
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin is Literal:
        if value in arguments:
            return value
        wanted = " or ".join(map(repr, arguments))
        raise refused("literal_error", place, f"Input should be {wanted}", value)
    if origin in _SCALARS:
        return _SCALARS[origin](value, place)
    if origin in _SEQUENCES or origin in _ARRAYS:
        return _check_array(origin, arguments, value, place)
    if origin is tuple:
        return _check_tuple(arguments, value, place)
    if origin in _MAPPINGS:
        return _check_mapping(arguments, value, place)
    return _check_class(origin, value, place) if isinstance(origin, type) else value


def _plain(hint: object) -> object:
    while typing.get_origin(hint) is typing.Annotated or isinstance(hint, typing.NewType) or _qualifier(hint):
        hint = hint.__supertype__ if isinstance(hint, typing.NewType) else typing.get_args(hint)[0]
    return hint


def _qualifier(hint: object) -> str:
    name = getattr(typing.get_origin(hint), "_name", None)
    return name if name in _QUALIFIERS else ""


def _required_fields(kind: type) -> frozenset[str]:
    """Return the required fields of a TypedDict.

    Its own list of them does not know what is said inside of annotations that were text when it was made, as those of a
    module with `from __future__ import annotations` are.
    """
    required: set[str] = set(getattr(kind, "__required_keys__", ()))
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        while (qualifier := _qualifier(hint)) or typing.get_origin(hint) is typing.Annotated:
            if qualifier == "Required":
                required.add(name)
            elif qualifier == "NotRequired":
                required.discard(name)
            hint = typing.get_args(hint)[0]
    return frozenset(required)


def _is_union(hint: object) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _is_model(kind: type) -> bool:
    """Return whether a class is a model of any pydantic version."""
    return hasattr(kind, "model_validate") or (hasattr(kind, "parse_obj") and hasattr(kind, "__fields__"))


def _check_class(kind: type, value: object, place: Place) -> object:
    if _is_model(kind):
        return _check_model(kind, value, place)
    if issubclass(kind, Enum):
        try:
            return kind(value)
        except ValueError:
            wanted = " or ".join(repr(member.value) for member in kind)
            raise refused("enum", place, f"Input should be {wanted}", value) from None
    # a TypedDict, including that of typing_extensions
    if issubclass(kind, dict) and hasattr(kind, "__required_keys__"):
        return _check_fields(kind, value, place, required=_required_fields(kind))
    if dataclasses.is_dataclass(kind):
        needed = frozenset(
            each.name
            for each in dataclasses.fields(kind)
            if each.init and each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
        )
        return kind(**_check_fields(kind, value, place, required=needed))
    return value


def _check_model(kind: type, value: object, place: Place) -> object:
    validate: Callable[..., object] | None = getattr(kind, "model_validate", None)
    try:
        # FastAPI calls the model in the same way, and its error messages show it.
        return kind.parse_obj(value) if validate is None else validate(value, from_attributes=True)  # type: ignore[attr-defined]  # pydantic 1
    except ValueError as error:
        errors = getattr(error, "errors", None)
        if errors is None:
            raise refused("value_error", place, str(error), value) from error
        found: list[dict[str, object]] = errors()
        kept = [{key: part for key, part in each.items() if key != "url"} for each in found]
        raise ValueRefusedError([{**each, "loc": [*place, *_loc(each)]} for each in kept]) from error


def _loc(error: Mapping[str, object]) -> Sequence[object]:
    where = error.get("loc", ())
    # pydantic before version 2 reports one of these for a value that is not an object.
    return where if isinstance(where, Sequence) and tuple(where) not in (("__root__",), ("__obj__",)) else ()


def _check_fields(kind: type, value: object, place: Place, *, required: frozenset[str]) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise refused("dict_type", place, "Input should be a valid dictionary", value)
    hints = typing.get_type_hints(kind, include_extras=True)
    found: dict[str, object] = {}
    errors: list[dict[str, object]] = []
    for name, hint in hints.items():
        try:
            if name in value:
                found[name] = check(hint, value[name], (*place, name))
            elif name in required:
                raise missing((*place, name), value)
        except ValueRefusedError as error:
            errors += error.errors
    if errors:
        raise ValueRefusedError(errors)
    return found


def _check_union(options: tuple[object, ...], value: object, place: Place) -> object:
    if value is None and type(None) in options:
        return None
    exact = [option for option in options if isinstance(option, type) and type(value) is option]
    errors: list[dict[str, object]] = []
    for option in [*exact, *options]:
        if option is type(None):
            continue
        try:
            return check(option, value, place)
        except ValueRefusedError as error:
            errors += error.errors
    raise ValueRefusedError(errors or refused("none_required", place, "Input should be None", value).errors)


def _check_array(origin: object, arguments: tuple[object, ...], value: object, place: Place) -> object:
    if not isinstance(value, list):
        raise refused("list_type", place, "Input should be a valid list", value)
    item = arguments[0] if arguments else typing.Any
    found = _each([(item, part, number) for number, part in enumerate(value)], place)
    return _ARRAYS.get(origin, list)(found)


def _check_tuple(arguments: tuple[object, ...], value: object, place: Place) -> object:
    if not isinstance(value, list):
        raise refused("tuple_type", place, "Input should be a valid tuple", value)
    if not arguments:
        return tuple(value)
    hints = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
    if len(hints) != len(value):
        raise refused("tuple_length", place, f"Tuple should have {len(hints)} items, not {len(value)}", value)
    return tuple(_each(zip(hints, value, range(len(value)), strict=True), place))


def _each(items: Iterable[tuple[object, object, str | int]], place: Place) -> list[object]:
    """Check the parts of a value, each (type, part, location). Raise all their errors together."""
    found: list[object] = []
    errors: list[dict[str, object]] = []
    for hint, part, where in items:
        try:
            found.append(check(hint, part, (*place, where)))
        except ValueRefusedError as error:
            errors += error.errors
    if errors:
        raise ValueRefusedError(errors)
    return found


def _check_mapping(arguments: tuple[object, ...], value: object, place: Place) -> object:
    if not isinstance(value, dict):
        raise refused("dict_type", place, "Input should be a valid dictionary", value)
    if len(arguments) != 2:
        return value
    keys = [check(arguments[0], key, (*place, key, "[key]")) for key in value]
    found = _each([(arguments[1], part, key) for key, part in value.items()], place)
    return dict(zip(keys, found, strict=True))


def _check_int(value: object, place: Place) -> object:
    if not isinstance(value, int | float | str):
        raise refused("int_type", place, "Input should be a valid integer", value)
    if isinstance(value, float):
        if not value.is_integer():
            message = "Input should be a valid integer, got a number with a fractional part"
            raise refused("int_from_float", place, message, value)
        return int(value)
    try:
        return int(value)
    except ValueError:
        message = "Input should be a valid integer, unable to parse string as an integer"
        raise refused("int_parsing", place, message, value) from None


def _check_float(value: object, place: Place) -> object:
    if not isinstance(value, int | float | str):
        raise refused("float_type", place, "Input should be a valid number", value)
    try:
        return float(value)
    except (ValueError, OverflowError):
        message = "Input should be a valid number, unable to parse string as a number"
        raise refused("float_parsing", place, message, value) from None


def _check_bool(value: object, place: Place) -> object:
    if isinstance(value, bool):
        return value
    if isinstance(value, float) and value in (0.0, 1.0):
        return bool(value)
    text = str(value).lower() if isinstance(value, str | int) else ""
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise refused("bool_parsing", place, "Input should be a valid boolean, unable to interpret input", value)


def _check_str(value: object, place: Place) -> object:
    if isinstance(value, str):
        return value
    raise refused("string_type", place, "Input should be a valid string", value)


def _check_bytes(value: object, place: Place) -> object:
    if isinstance(value, str | bytes):
        return value.encode() if isinstance(value, str) else value
    raise refused("bytes_type", place, "Input should be a valid bytes", value)


def _check_none(value: object, place: Place) -> object:
    if value is None:
        return None
    raise refused("none_required", place, "Input should be None", value)


_SCALARS: dict[object, Callable[[object, Place], object]] = {
    int: _check_int,
    float: _check_float,
    bool: _check_bool,
    str: _check_str,
    bytes: _check_bytes,
    None: _check_none,
    type(None): _check_none,
}
