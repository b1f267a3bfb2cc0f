"""Models and fields whose JSON schema tells forms how to show them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, Field, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from fal.toolkit.constraints import ImageSizeConstraints, VideoNormalizationConfig, VideoValidationConfig, to_xfal

__all__ = [
    "IS_PYDANTIC_V2",
    "AudioField",
    "FalBaseModel",
    "Field",
    "FileField",
    "Hidden",
    "ImageField",
    "ImageSizeField",
    "VideoField",
]

IS_PYDANTIC_V2 = True
"""For apps that check it: this package needs pydantic 2."""

T = TypeVar("T")
_HIDDEN = "fal: hidden"


class FalBaseModel(BaseModel):
    """A model that can order and hide fields in its JSON schema.

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
        TypeError: it is not a field.
        ValueError: it has no default, so callers could not leave it out.
    """
    if not isinstance(field, FieldInfo):
        raise TypeError(f"Hidden takes a Field, not {type(field).__name__}: write Hidden(Field(default=...))")
    if field.is_required():
        raise ValueError("a hidden field must have a default or default_factory")
    field.metadata = [*field.metadata, _HIDDEN]
    return field


def _field_of(extra: Mapping[str, Any], options: dict[str, Any]) -> Any:  # noqa: ANN401  # as pydantic's own
    """Return a field with additional schema entries; the options' `ui` takes precedence."""
    given = options.pop("json_schema_extra", None)
    ui = options.pop("ui", None)

    def extend(schema: dict[str, Any]) -> None:
        if callable(given):
            given(schema)
        schema.update({name: value for name, value in extra.items() if name != "ui"})
        merged = {**extra.get("ui", {}), **schema.get("ui", {}), **(ui or {})}
        if merged:
            schema["ui"] = merged

    if callable(given):
        return Field(**options, json_schema_extra=extend)
    start = dict(given or {})
    extend(start)
    return Field(**options, json_schema_extra=start)


@wraps(Field)
def FileField(default: Any = ..., **options: Any) -> Any:  # noqa: ANN401, N802  # pydantic's types, the published name
    """Return pydantic's `Field` for a file's address. A form lets the user choose or upload the file."""
    return _field_of({"ui": {"field": "file"}}, {"default": default, **options})


@wraps(Field)
def ImageField(default: Any = ..., **options: Any) -> Any:  # noqa: ANN401, N802  # as above
    """`FileField` for an image."""
    return _field_of({"ui": {"field": "image"}}, {"default": default, **options})


@wraps(Field)
def AudioField(default: Any = ..., **options: Any) -> Any:  # noqa: ANN401, N802  # as above
    """`FileField` for an audio file."""
    return _field_of({"ui": {"field": "audio"}}, {"default": default, **options})


@wraps(Field)
def VideoField(  # noqa: N802  # as above
    default: Any = ...,  # noqa: ANN401  # as above
    *,
    constraints: VideoValidationConfig | None = None,
    combined_constraints: VideoValidationConfig | None = None,
    normalization: VideoNormalizationConfig | None = None,
    **options: Any,  # noqa: ANN401  # as above
) -> Any:  # noqa: ANN401  # as above
    """`FileField` for a video, with its limits in the schema as `x-fal`.

    Args:
        default: as in pydantic's `Field`.
        constraints: limits; a video outside of them is refused.
        combined_constraints: limits of all videos together, for a list of them.
        normalization: how the endpoint normalizes an accepted video.
        options: as in pydantic's `Field`; `ui` for forms.
    """
    limits: dict[str, object] = {} if constraints is None else to_xfal(constraints)
    for name, config in (("combined", combined_constraints), ("normalization", normalization)):
        found = {} if config is None else to_xfal(config)
        if found:
            limits[name] = found
    extra = {"ui": {"field": "video"}, **({"x-fal": limits} if limits else {})}
    return _field_of(extra, {"default": default, **options})


@wraps(Field)
def ImageSizeField(default: Any = ..., *, constraints: ImageSizeConstraints | None = None, **options: Any) -> Any:  # noqa: ANN401, N802  # as above
    """Return pydantic's `Field` for an `ImageSizeInput`. The schema has the model's limits as `x-fal`.

    Args:
        default: as in pydantic's `Field`.
        constraints: the sizes that the model can draw.
        options: as in pydantic's `Field`; `ui` for forms.
    """
    limits = {} if constraints is None else to_xfal(constraints)
    return _field_of({"x-fal": limits} if limits else {}, {"default": default, **options})
