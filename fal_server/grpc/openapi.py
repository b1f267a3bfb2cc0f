"""Describes unary methods and their messages in OpenAPI, in protobuf's JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor

from fal_server.grpc.permissions import ANY_KEY, METHOD_PERMISSIONS

_Schema: TypeAlias = dict[str, object]
_VERSION = "3.1.0"
_INTEGER: _Schema = {"type": "integer", "format": "int32"}
_LONG: _Schema = {
    "type": ["string", "integer"],
    "format": "int64",
}  # responses have texts, because not every reader supports 64 bits
_REAL: _Schema = {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}
_SCALARS: dict[int, _Schema] = {
    FieldDescriptor.TYPE_DOUBLE: _REAL,
    FieldDescriptor.TYPE_FLOAT: _REAL,
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    **dict.fromkeys(
        (
            FieldDescriptor.TYPE_INT32,
            FieldDescriptor.TYPE_UINT32,
            FieldDescriptor.TYPE_SINT32,
            FieldDescriptor.TYPE_FIXED32,
            FieldDescriptor.TYPE_SFIXED32,
        ),
        _INTEGER,
    ),
    **dict.fromkeys(
        (
            FieldDescriptor.TYPE_INT64,
            FieldDescriptor.TYPE_UINT64,
            FieldDescriptor.TYPE_SINT64,
            FieldDescriptor.TYPE_FIXED64,
            FieldDescriptor.TYPE_SFIXED64,
        ),
        _LONG,
    ),
}
# protobuf's own messages with a special form in JSON.
_KNOWN: dict[str, _Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?\d+(\.\d+)?s$"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
    "google.protobuf.ListValue": {"type": "array"},
    "google.protobuf.Empty": {"type": "object"},
    "google.protobuf.Any": {"type": "object"},
    "google.protobuf.FieldMask": {"type": "string"},
}
ERROR = "connect.Error"
_ERROR: _Schema = {
    "type": "object",
    "required": ["code"],
    "properties": {
        "code": {"type": "string"},
        "message": {"type": "string"},
        "details": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "value"],
                "properties": {"type": {"type": "string"}, "value": {"type": "string", "contentEncoding": "base64"}},
            },
        },
    },
}


def description(methods: Mapping[str, MethodDescriptor]) -> Mapping[str, object]:
    """Return the OpenAPI description of methods by their paths."""
    schemas: dict[str, _Schema] = {ERROR: _ERROR}
    paths = {path: {"post": _operation(method, schemas)} for path, method in sorted(methods.items())}
    return {
        "openapi": _VERSION,
        "info": {"title": "fal-grpc controller", "version": "v1"},
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "Authorization"}},
        },
    }


def _operation(method: MethodDescriptor, schemas: dict[str, _Schema]) -> _Schema:
    needed = METHOD_PERMISSIONS[method.full_name]
    return {
        "operationId": method.full_name,
        "tags": [method.containing_service.name],
        "summary": "Needs any key." if needed == ANY_KEY else f"Needs {needed}.",
        "security": [{"key": []}],
        "requestBody": {"required": True, "content": _json(_message(method.input_type, schemas))},
        "responses": {
            "200": {"description": "The answer.", "content": _json(_message(method.output_type, schemas))},
            "default": {"description": "The call failed.", "content": _json(_reference(ERROR))},
        },
    }


def _json(schema: _Schema) -> _Schema:
    return {"application/json": {"schema": schema}}


def _reference(name: str) -> _Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _message(message: Descriptor, schemas: dict[str, _Schema]) -> _Schema:
    """Return a reference to a message, adding its schema to `schemas`."""
    name = message.full_name
    if name in _KNOWN:
        return _KNOWN[name]
    if name not in schemas:
        schemas[name] = {}  # a message may contain itself
        fields = {field.json_name: _field(field, schemas) for field in message.fields}
        schemas[name] = {"type": "object", "properties": fields, "additionalProperties": False}
    return _reference(name)


def _field(field: FieldDescriptor, schemas: dict[str, _Schema]) -> _Schema:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return {"type": "object", "additionalProperties": _one(kind.fields_by_name["value"], schemas)}
    one = _one(field, schemas)
    return {"type": "array", "items": one} if field.is_repeated else one


def _one(field: FieldDescriptor, schemas: dict[str, _Schema]) -> _Schema:
    if field.message_type is not None:
        return _message(field.message_type, schemas)
    if field.enum_type is not None:
        return _enum(field.enum_type, schemas)
    return _SCALARS[field.type]


def _enum(enum: EnumDescriptor, schemas: dict[str, _Schema]) -> _Schema:
    # A number stands for a value that its reader does not know.
    schemas[enum.full_name] = {"anyOf": [{"enum": [value.name for value in enum.values]}, {"type": "integer"}]}
    return _reference(enum.full_name)
