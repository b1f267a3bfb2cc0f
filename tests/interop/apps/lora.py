"""A model with adapters. It reports the loaded ones and returns trained ones as files."""

import json

import fal
from fal.toolkit import File
from pydantic import BaseModel


class Train(BaseModel):
    name: str
    images: list[File]


class Trained(BaseModel):
    diffusers_lora_file: File
    config_file: File


class Infer(BaseModel):
    lora: File


class Lora(fal.App, keep_alive=60):
    machine_type = "XS"
    requirements = ["pillow"]

    def setup(self):
        self.loaded: list[str] = []

    def provide_hints(self):
        return self.loaded

    @fal.endpoint("/train")
    def train(self, input: Train) -> Trained:
        weights = b"".join(image.url.encode() for image in input.images)
        return Trained(
            diffusers_lora_file=File.from_bytes(weights, file_name="lora.safetensors", repository="in_memory"),
            config_file=File.from_bytes(
                json.dumps({"name": input.name}).encode(), "application/json", "config.json", repository="in_memory"
            ),
        )

    @fal.endpoint("/")
    def infer(self, input: Infer) -> dict:
        path = input.lora.save("/tmp/loras/lora.bin", overwrite=True)
        self.loaded = ["lora"]
        return {"bytes": path.stat().st_size}
