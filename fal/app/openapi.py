"""Describes an app with FastAPI's OpenAPI document. It adds field order and WebSockets as `x-fal-*`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

from fastapi import FastAPI

from fal.app.endpoints import Route


def describe(
    api: FastAPI, base: Callable[[], dict[str, object]], sockets: list[tuple[Route, Callable[..., object]]]
) -> dict[str, object]:
    """Return the description of `api`.

    Args:
        api: the app, which caches the description.
        base: FastAPI's own description.
        sockets: the WebSocket routes and their methods, which OpenAPI cannot describe.
    """
    if api.openapi_schema is not None:
        return api.openapi_schema
    spec = base()
    paths = _table(spec, "paths")
    spec["x-fal-order-paths"] = [*paths]
    for schema in _table(_table(spec, "components"), "schemas").values() if "components" in spec else ():
        _order(schema)
    for route, method in sockets:
        _add_socket(spec, route, method)
    if sockets:
        spec["x-fal-order-paths"] = [*paths]
    api.openapi_schema = spec
    return spec


def _table(parent: dict[str, object], key: str) -> dict[str, object]:
    child = parent.setdefault(key, {})
    assert isinstance(child, dict)
    return child


def _order(schema: object) -> None:
    """Record the order of fields, which JSON objects lose but forms need."""
    if not isinstance(schema, dict):
        return
    for part in schema.get("allOf", []):
        _order(part)
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        schema["x-fal-order-properties"] = [*properties]


def _add_socket(spec: dict[str, object], route: Route, method: Callable[..., object]) -> None:
    how = route.realtime
    operation: dict[str, object] = {
        "type": "realtime" if how else "websocket",
        "operationId": method.__name__,
        "config": {
            "buffering": how.buffering if how else None,
            "sessionTimeout": how.session_timeout if how else None,
            "maxBatchSize": how.max_batch_size if how else 1,
        },
    }
    models: tuple[type | None, type | None] = (None, None)
    if how:
        from fal.app.realtime import shape_of

        shape = shape_of(method, how)
        operation["contentType"] = how.content_type
        operation["realtimeMode"] = shape.mode
        models = (shape.input_model, shape.output_model)
    names = [_add_model(spec, model) for model in models]
    item = _table(_table(spec, "paths"), route.path)
    item["x-fal-protocol"] = operation
    if any(names) and "post" not in item:
        item["post"] = _mirror(method, "Realtime" if how else "WebSocket", *names)


def _mirror(
    method: Callable[..., object], kind: str, input_name: str | None, output_name: str | None
) -> dict[str, object]:
    """Return a POST that is not served. Forms read the types of a socket's messages from it."""
    operation: dict[str, object] = {
        "operationId": f"{method.__name__}_post",
        "summary": f"{kind} endpoint: {method.__name__}",
        "description": inspect.getdoc(method) or "",
    }
    answer: dict[str, object] = {"description": "WebSocket message response"}
    if input_name:
        operation["requestBody"] = {"content": _json(input_name)}
    if output_name:
        answer["content"] = _json(output_name)
    operation["responses"] = {"200" if output_name else "204": answer}
    return operation


def _json(name: str) -> dict[str, object]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _add_model(spec: dict[str, object], model: type | None) -> str | None:
    if model is None:
        return None
    from pydantic import TypeAdapter

    schema = TypeAdapter(model).json_schema(ref_template="#/components/schemas/{model}")
    schemas = _table(_table(spec, "components"), "schemas")
    definitions = schema.pop("$defs", {})
    assert isinstance(definitions, dict)
    schemas.update(definitions)
    schemas[model.__name__] = schema
    return model.__name__
