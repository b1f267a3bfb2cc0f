"""Turns an endpoint's OpenAPI description into form fields. It also turns the input into JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fal_server.core.faults import InvalidArgument
from fal_server.core.revisions import Json

_ABSENT = object()
_MOST_STEPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """An input of the form.

    Attributes:
        kind: text, number, whole, switch, choice or json.
        initial: its initial content.
    """

    name: str
    title: str
    kind: str
    help: str
    required: bool
    initial: str
    choices: tuple[str, ...] = ()
    least: Json = None
    most: Json = None


def endpoints(description: Json) -> list[str]:
    """Return the paths that accept POST or realtime sessions, in order."""
    paths = _mapping(_mapping(description).get("paths"))
    return [path for path, item in paths.items() if "post" in _mapping(item) or is_realtime(description, path)]


def is_realtime(description: Json, path: str) -> bool:
    """Return whether a path takes messages over a WebSocket. The POST described beside it is not served then."""
    item = _mapping(_mapping(_mapping(description).get("paths")).get(path))
    return _mapping(item.get("x-fal-protocol")).get("type") == "realtime"


def fields_of(description: Json, path: str) -> list[Field]:
    """Return the inputs of an endpoint. There are none if its description has no object."""
    whole = _mapping(description)
    operation = _mapping(_mapping(_mapping(whole.get("paths")).get(path)).get("post"))
    content = _mapping(_mapping(operation.get("requestBody")).get("content"))
    schema = _resolved(whole, _mapping(content.get("application/json")).get("schema"))
    properties, required = _mapping(schema.get("properties")), schema.get("required")
    names = [str(name) for name in _sequence(schema.get("x-fal-order-properties")) if name in properties]
    names += [name for name in properties if name not in names]
    return [_field(name, _resolved(whole, properties[name]), name in _sequence(required)) for name in names]


def example_of(fields: Sequence[Field]) -> dict[str, object]:
    """Return the JSON for the form's initial content."""
    return entered(fields, {field.name: field.initial for field in fields}, check=False)


def entered(fields: Sequence[Field], form: Mapping[str, str], *, check: bool = True) -> dict[str, object]:
    """Return the JSON for the input; an empty optional field is omitted.

    Raises:
        InvalidArgument: an input has the wrong kind.
    """
    found: dict[str, object] = {}
    for field in fields:
        text = form.get(field.name, "")
        if field.kind == "switch":
            found[field.name] = text in {"on", "true"}
        elif text or (field.required and field.kind == "text"):
            try:
                found[field.name] = _value(field, text)
            except ValueError:
                if check:
                    raise InvalidArgument(
                        field.name, f"{field.name} is {text[:60]!r}: give {_WORDS[field.kind]}"
                    ) from None
    return found


_WORDS = {"number": "a number", "whole": "a whole number", "json": "JSON"}


def _value(field: Field, text: str) -> object:
    match field.kind:
        case "number":
            return float(text)
        case "whole":
            return int(text)
        case "json":
            return json.loads(text)
        case "choice":
            return next((value for value in map(_loaded, field.choices) if _shown(value) == text), text)
        case _:
            return text


def _field(name: str, schema: Mapping[str, Json], required: bool) -> Field:
    kind = {"string": "text", "integer": "whole", "number": "number", "boolean": "switch"}.get(
        str(schema.get("type")), "json"
    )
    choices = tuple(_shown(choice) for choice in _sequence(schema.get("enum")))
    examples = _sequence(schema.get("examples"))
    first: object = schema.get("default", examples[0] if examples else _ABSENT)
    return Field(
        name=name,
        title=str(schema.get("title") or name),
        kind="choice" if choices else kind,
        help=str(schema.get("description") or ""),
        required=required,
        initial="" if first is _ABSENT or first is None else _shown(first) if kind != "json" else json.dumps(first),
        choices=choices,
        least=schema.get("minimum"),
        most=schema.get("maximum"),
    )


def _resolved(whole: Mapping[str, Json], schema: Json) -> Mapping[str, Json]:
    """Resolve references to the schema with the type. Do the same with choices of one type and null."""
    found = _mapping(schema)
    for _ in range(_MOST_STEPS):
        options = [each for each in _sequence(found.get("anyOf")) if _mapping(each).get("type") != "null"]
        reference, parts = found.get("$ref"), _sequence(found.get("allOf"))
        if isinstance(reference, str):
            inner = _mapping(
                _mapping(_mapping(whole.get("components")).get("schemas")).get(reference.rpartition("/")[2])
            )
        elif len(options) == 1 or len(parts) == 1:
            inner = _mapping((options or parts)[0])
        else:
            return found
        found = {**inner, **{key: value for key, value in found.items() if key not in {"$ref", "anyOf", "allOf"}}}
    return found


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _loaded(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _mapping(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: Json) -> Sequence[Json]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()
