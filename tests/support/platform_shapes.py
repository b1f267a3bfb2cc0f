"""Checks answers against the published platform API's shapes. A file has them without prose."""

from __future__ import annotations

import json
import re
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

_SHAPES = json.loads((Path(__file__).resolve().parents[1] / "http" / "platform" / "shapes.json").read_text())
OPERATIONS: dict[str, dict[str, Any]] = _SHAPES["operations"]
"""By method and path, such as `GET /keys`; paths stand below /v1."""

_FORMATS = FormatChecker(formats=())


@_FORMATS.checks("date-time")
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


@_FORMATS.checks("uuid")
def _is_uuid(value: object) -> bool:
    return not isinstance(value, str) or str(uuid.UUID(value)) == value.lower()


def faults_of(operation: str, status: int, content_type: str | None, body: bytes) -> list[str]:
    """Return the differences between an answer and the description. The list is empty if there are none."""
    shape = OPERATIONS[operation]
    if status >= 400:
        return [*_unlike(_SHAPES["error"], json.loads(body))]
    answers = shape["answers"]
    assert isinstance(answers, dict)
    if str(status) not in answers:
        return [f"status {status} is not described"]
    kinds = answers[str(status)]
    if not kinds:
        return ["there is a body"] if body else []
    kind = (content_type or "").partition(";")[0]
    if kind not in kinds:
        return [f"content type {kind} is not described"]
    return [*_unlike(kinds[kind], json.loads(body))] if kind == "application/json" else []


def operation_of(method: str, path: str) -> str:
    """Return the operation of a route, whose path has other parameter names."""
    wanted = _unnamed(path.removeprefix("/v1"))
    (found,) = [
        name for name in OPERATIONS if name.partition(" ")[0] == method and _unnamed(name.split(" ")[1]) == wanted
    ]
    return found


def _unnamed(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


def _unlike(schema: Any, value: Any) -> list[str]:
    checker = Draft202012Validator(schema, format_checker=_FORMATS)
    return [f"{'.'.join(map(str, error.path))}: {error.message[:200]}" for error in checker.iter_errors(value)]
