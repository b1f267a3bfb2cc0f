"""The arguments of operations and tools, as JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Schema: TypeAlias = "Mapping[str, object]"

TEXT: Schema = {"type": "string"}
ENDPOINT: Schema = {
    "type": "string",
    "pattern": "^[^/]+/[^/]+$",
    "description": "The app as `owner/name`, as list_apps shows it.",
}
ENDPOINTS: Schema = {
    "anyOf": [TEXT, {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 50}],
    "description": "One or more of `owner/name` or `owner/name/path`, as list_apps shows them.",
}
LIMIT: Schema = {"type": "integer", "minimum": 1, "description": "How many to return at most."}
CURSOR: Schema = {"type": "string", "description": "The `next_cursor` of the page before."}
_WHEN = "ISO 8601, as 2026-01-31T12:00:00Z or 2026-01-31."
SPAN: dict[str, Schema] = {
    "start": {"type": "string", "description": f"The first time, by default a day before the end. {_WHEN}"},
    "end": {"type": "string", "description": f"The time to end before, by default now. {_WHEN}"},
}
PAGES: dict[str, Schema] = {"limit": LIMIT, "cursor": CURSOR}
TIMEFRAME: Schema = {
    "enum": ["minute", "hour", "day", "week", "month"],
    "description": "How long a bucket is; by default it follows from the time asked for.",
}
BUCKETS: dict[str, Schema] = {
    **SPAN,
    **PAGES,
    "timeframe": TIMEFRAME,
    "timezone": {"type": "string", "description": "The zone in which days begin, such as Europe/Berlin."},
    "bound_to_timeframe": {"enum": ["true", "false"], "description": "Whether start and end widen to whole buckets."},
}


def several(*words: str, about: str) -> Schema:
    """Return the schema for one or more of some words."""
    one: Schema = {"enum": list(words)}
    return {"anyOf": [one, {"type": "array", "items": one}], "description": about}


def described(schema: Schema, about: str) -> Schema:
    """Return a schema with a description."""
    return {**schema, "description": about}


def arguments(properties: Mapping[str, Schema], required: Sequence[str] = ()) -> Schema:
    """Return the schema of arguments, which allows no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }
