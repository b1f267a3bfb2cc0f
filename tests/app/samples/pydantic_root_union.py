"""A RootModel over a discriminated union as the request body."""

from typing import Annotated, Literal, Union
import fal
from pydantic import BaseModel, Field, RootModel
class Blur(BaseModel):
    op: Literal["blur"]
    radius: int = 2
class Crop(BaseModel):
    op: Literal["crop"]
    w: int = 10
class Step(RootModel[Annotated[Union[Blur, Crop], Field(discriminator="op")]]):
    pass
class Ask(BaseModel):
    steps: list[Step]
class U06(fal.App, name="u06"):
    machine_type = "XS"
    app_auth = "public"
    @fal.endpoint("/")
    def look(self, request: Ask) -> dict[str, object]:
        return {"ops": [s.root.op for s in request.steps]}
