"""Models and fields with a JSON schema that tells forms how to show them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, Field, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

__all__ = ["AudioField", "FalBaseModel", "Field", "FileField", "Hidden", "ImageField", "VideoField"]

T = TypeVar("T")
_HIDDEN = "fal: hidden"


class FalBaseModel(BaseModel):
    """A model whose fields can be ordered and hidden in its JSON schema.

        class Input(FalBaseModel):
            FIELD_ORDERS = ["prompt"]

            seed: int = Field(default=0)
            prompt: str = Field(description="What to draw.")
            debug: bool = Hidden(Field(default=False))

    Attributes:
        FIELD_ORDERS: names of fields that come first, in this order.
        SCHEMA_IGNORES: names of fields to hide, for older apps; newer ones use `Hidden`.
    """

    FIELD_ORDERS: ClassVar[list[str]] = []
    SCHEMA_IGNORES: ClassVar[set[str]] = set()

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return pydantic's schema in the wanted order, with `ui.hidden` for hidden fields."""
        made = handler(core_schema)
        schema = handler.resolve_ref_schema(made)
        fields: dict[str, dict[str, Any]] = schema.get("properties", {})
        for name, field in cls.model_fields.items():
            shown = field.serialization_alias or field.alias or name
            if shown in fields and (_HIDDEN in field.metadata or name in cls.SCHEMA_IGNORES):
                fields[shown] = {**fields[shown], "ui": {**fields[shown].get("ui", {}), "hidden": True}}
        first = [name for name in cls.FIELD_ORDERS if name in fields]
        if first:
            schema["properties"] = {name: fields[name] for name in (*first, *(set_aside(fields, first)))}
        return made


def set_aside(fields: dict[str, dict[str, Any]], first: list[str]) -> list[str]:
    """Return the names that are not among the first, in their order."""
    return [name for name in fields if name not in first]


def Hidden(field: T) -> T:  # noqa: N802  # the published name
    """Hide a field of a `FalBaseModel` in forms: `debug: bool = Hidden(Field(default=False))`.

    Raises:
        TypeError: it is no field.
        ValueError: it has no default, so callers could not leave it out.
    """
    if not isinstance(field, FieldInfo):
        raise TypeError(f"Hidden takes a Field, not {type(field).__name__}: write Hidden(Field(default=...))")
    if field.is_required():
        raise ValueError("a hidden field must have a default or default_factory")
    field.metadata = [*field.metadata, _HIDDEN]
    return field


def _field_of(kind: str) -> Callable[..., Any]:
    def make(default: Any = ..., *, json_schema_extra: dict[str, Any] | None = None, **options: Any) -> Any:  # noqa: ANN401  # as pydantic's own
        extra = dict(json_schema_extra or {})
        ui = {"field": kind, **extra.pop("ui", {}), **options.pop("ui", {})}
        return Field(default, json_schema_extra={**extra, "ui": ui}, **options)

    make.__doc__ = f"pydantic's `Field` for the address of a file, which a form lets choose or upload: {kind}."
    return make


FileField = _field_of("file")
ImageField = _field_of("image")
AudioField = _field_of("audio")
VideoField = _field_of("video")
