"""__init_subclass__ or a metaclass with a required keyword."""

import fal
from pydantic import BaseModel
class Op:
    def __init_subclass__(cls, *, unit: str):
        cls.unit = unit
class Meter(Op, unit="m"):
    def show(self, n): return f"{n}{self.unit}"
class Tagged(type):
    def __new__(mcs, name, bases, ns, *, tag):
        return super().__new__(mcs, name, bases, {**ns, "tag": tag})
    def __init__(cls, name, bases, ns, *, tag):
        super().__init__(name, bases, ns)
class Y1(fal.App, name="y1"):
    machine_type = "XS"
    app_auth = "public"
    @fal.endpoint("/")
    def look(self) -> dict[str, object]:
        return {"m": Meter().show(3)}
