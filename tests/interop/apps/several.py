"""Several endpoints, which answer errors in different ways, and a health check."""

import fal
from fal import HealthCheck
from fal.exceptions import AppException, FieldException, catch_gpu_exceptions
from pydantic import BaseModel


class Input(BaseModel):
    prompt: str


class Several(fal.App, keep_alive=60):
    machine_type = "XS"
    requirements = ["pillow"]

    @fal.endpoint("/")
    def first(self, input: Input) -> dict:
        return {"prompt": input.prompt}

    @fal.endpoint("/refused")
    def refused(self, input: Input) -> dict:
        raise FieldException("prompt", "is not allowed")

    @fal.endpoint("/busy")
    def busy(self) -> dict:
        raise AppException("come back later", 429)

    @fal.endpoint("/memory")
    @catch_gpu_exceptions()
    def memory(self) -> dict:
        raise RuntimeError("CUDA error: out of memory")

    @fal.endpoint("/ok", health_check=HealthCheck(failure_threshold=5))
    def ok(self) -> dict:
        return {"ok": True}
