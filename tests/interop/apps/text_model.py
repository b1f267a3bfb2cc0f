"""A text model whose weights are downloaded once."""

import json

import fal
from fal.toolkit import FalBaseModel, Field, Hidden, download_file
from pydantic import BaseModel

WEIGHTS = "data:application/json;base64,eyJnb29kIjogMSwgImJhZCI6IC0xfQ=="


class Input(FalBaseModel):
    FIELD_ORDERS = ["text"]

    scale: int = Field(default=1, ge=1)
    text: str = Field(description="What to judge.")
    trace: bool = Hidden(Field(default=False))


class Output(BaseModel):
    score: int
    label: str


class TextModel(fal.App, keep_alive=60):
    machine_type = "XS"
    requirements = ["pillow"]

    def setup(self):
        self.weights = json.loads(download_file(WEIGHTS, "/tmp/weights").read_text())

    @fal.endpoint("/")
    def judge(self, input: Input) -> Output:
        score = input.scale * sum(self.weights.get(word, 0) for word in input.text.split())
        return Output(score=score, label="good" if score > 0 else "bad")
