"""A model whose compiled kernels are kept for later runners."""

import os
from pathlib import Path

import fal
from fal.toolkit import get_gpu_type
from pydantic import BaseModel


class Input(BaseModel):
    pass


class Compiled(fal.App, keep_alive=60):
    machine_type = "XS"
    requirements = ["pillow"]

    def setup(self):
        self.gpu = get_gpu_type()

    @fal.endpoint("/")
    async def run(self, input: Input) -> dict:
        return {"gpu": self.gpu, "tmp": Path("/tmp").is_dir(), "state": os.environ["FAL_RUNNER_STATE"]}
