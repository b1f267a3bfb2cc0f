"""An app that resolves type hints of its own classes late."""

from __future__ import annotations
import dataclasses
import typing
import fal
from pydantic import BaseModel
class Money(BaseModel):
    cents: int
@dataclasses.dataclass
class Line:
    price: Money
    count: int = 1
def build(cls, data):
    hints = typing.get_type_hints(cls)
    return cls(**{f.name: (hints[f.name](**data[f.name]) if isinstance(data[f.name], dict) else data[f.name]) for f in dataclasses.fields(cls) if f.name in data})
class Y2(fal.App, name="y2"):
    machine_type = "XS"
    app_auth = "public"
    @fal.endpoint("/")
    def look(self) -> dict[str, object]:
        line = build(Line, {"price": {"cents": 5}, "count": 2})
        return {"total": line.price.cents * line.count}
