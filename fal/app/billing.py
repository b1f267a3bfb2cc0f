"""Billing declarations of endpoints, published with the revision."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal, Protocol, TypedDict, cast, runtime_checkable

VERSION = 1
_KEYS = frozenset({"version", "schema_id", "app"})


class BillingComponents(TypedDict):
    """The values that an endpoint reports for billing.

    `app` is the JSON schema of the report, an object whose properties are the metrics; `schema_id` names it.
    """

    version: Literal[1]
    schema_id: str
    app: Mapping[str, object]


@runtime_checkable
class BillingDeclaration(Protocol):
    """Declares the values that an endpoint reports for billing."""

    def declaration(self) -> BillingComponents:
        """Return the declaration."""
        ...


def check_declaration(path: str, value: object) -> BillingComponents:
    """Check and return a declaration.

    Args:
        path: the endpoint's path, for messages.
        value: the result of `declaration()`.

    Raises:
        ValueError: it is malformed, or JSON would not carry it unchanged.
    """
    problem = _problem(value)
    if problem is not None:
        raise ValueError(f"the billing declaration of {path} {problem}")
    return cast("BillingComponents", value)


def _problem(value: object) -> str | None:
    if not isinstance(value, dict) or value.keys() != _KEYS:
        return f"must be a mapping with exactly {', '.join(sorted(_KEYS))}"
    if value["version"] is True or value["version"] != VERSION:
        return f"must have version {VERSION}"
    if not isinstance(value["schema_id"], str) or not value["schema_id"]:
        return "must have a schema_id that is a text and not empty"
    if not isinstance(value["app"], dict) or value["app"].get("type") != "object":
        return 'must have as app a JSON schema of type "object"'
    try:
        same = json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError):
        same = False
    return None if same else "must survive JSON unchanged: give texts as keys, lists, and finite numbers"
