"""An annotation under TYPE_CHECKING beside a request body."""

from __future__ import annotations
from typing import TYPE_CHECKING
import fal
from pydantic import BaseModel
if TYPE_CHECKING:
    from collections.abc import Mapping
class Ask(BaseModel):
    n: int = 1
class U03(fal.App, name="u03"):
    machine_type = "XS"
    app_auth = "public"
    @fal.endpoint("/")
    def look(self, request: Ask) -> Mapping[str, int]:
        return {"n": request.n}
