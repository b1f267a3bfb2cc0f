"""A model in its own package: pyproject.toml names its class."""

from functools import cached_property

import fal
from pydantic import BaseModel, Field


class Request(BaseModel):
    prompt: str = Field(description="What to answer.", examples=["a fox"])
    words: int = Field(default=2, ge=1, le=9)


class Response(BaseModel):
    output: str
    package: str


class Packaged(fal.App, keep_alive=60):
    async def setup(self):
        self.ready = True

    @cached_property
    def package(self) -> str:
        return __name__

    @fal.endpoint("/")
    def complete(self, request: Request) -> Response:
        return Response(output=" ".join([request.prompt] * request.words), package=self.package)

    @fal.endpoint("/ready")
    def is_ready(self) -> dict:
        return {"ready": self.ready}
