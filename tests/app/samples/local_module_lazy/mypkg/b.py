"""Local_python_modules cannot be imported inside of setup() or an endpoint."""

from __future__ import annotations
import enum
from pydantic import BaseModel
class Kind(enum.Enum):
    A = "a"
class Ask(BaseModel):
    kind: Kind = Kind.A
def val(): return __name__
