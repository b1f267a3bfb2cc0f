"""A model in its own container image, which contains its requirements."""

import fal
from fal.container import ContainerImage
from fal.exceptions import FieldException
from pydantic import BaseModel, Field

DOCKERFILE = """
FROM localhost/fal-test-base:1

ARG VOICE
RUN mkdir -p /opt/model && echo "$VOICE" > /opt/model/voice
ENV MODEL_DIR=/opt/model
"""


class Input(BaseModel):
    text: str = Field(description="What to say.")


class Output(BaseModel):
    said: str
    voice: str


class BoxedModel(
    fal.App,
    name="boxed-model",
    kind="container",
    image=ContainerImage.from_dockerfile_str(DOCKERFILE, build_args={"VOICE": "low"}),
    keep_alive=60,
    max_concurrency=1,
):
    machine_type = "XS"

    def setup(self):
        import os

        with open(os.path.join(os.environ["MODEL_DIR"], "voice")) as file:
            self.voice = file.read().strip()

    @fal.endpoint("/")
    def say(self, input: Input) -> Output:
        return Output(said=input.text.upper(), voice=self.voice)

    @fal.endpoint("/refused")
    def refuse(self, input: Input) -> Output:
        raise FieldException("text", "cannot be said")
