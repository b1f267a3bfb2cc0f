"""Apps with every option of a class or a function. Both packages understand them."""

from pydantic import BaseModel

import fal
from fal import ContainerImage, HealthCheck


class Input(BaseModel):
    text: str = ""


class EveryOption(
    fal.App,
    name="every-option",
    keep_alive=11,
    min_concurrency=1,
    max_concurrency=4,
    concurrency_buffer=2,
    concurrency_buffer_perc=30,
    scaling_delay=5,
    max_multiplexing=6,
    private_logs=True,
):
    machine_type = ["GPU-A100", "GPU-H100"]  # noqa: RUF012
    num_gpus = 2
    regions = ["us-east", "eu-west"]  # noqa: RUF012
    requirements = ["humanize==4.11.0"]  # noqa: RUF012
    app_auth = "shared"
    request_timeout = 70
    request_start_timeout = 80
    startup_timeout = 90
    termination_grace_period_seconds = 12
    secrets = ["ONE", "TWO"]  # noqa: RUF012
    data_mounts = ["/data/models"]  # noqa: RUF012
    skip_retry_conditions = ["timeout", "server_error"]  # noqa: RUF012
    retry_config = {"connection_error": {"retries": 3}}  # noqa: RUF012

    @fal.endpoint("/")
    def echo(self, request: Input) -> Input:
        return request

    @fal.endpoint(
        "/ok",
        health_check=HealthCheck(start_period_seconds=100, timeout_seconds=4, failure_threshold=5, call_regularly=True),
    )
    def ok(self) -> dict:
        return {}


class OldForm(fal.App):
    """Options as a mapping."""

    host_kwargs = {"keep_alive": 5, "max_multiplexing": 3}  # noqa: RUF012
    requirements = [["humanize==4.11.0"], ["six==1.17.0"]]  # noqa: RUF012

    @fal.endpoint("/")
    def echo(self, request: Input) -> Input:
        return request

    @fal.realtime("/realtime")
    def talk(self, request: Input) -> Input:
        return request


class InAnImage(fal.App, kind="container"):
    image = ContainerImage.from_dockerfile_str(
        "FROM python:3.11\nRUN echo hello\n",
        build_args={"A": "b"},
        registries={"registry.example": {"username": "u", "password": "p"}},
    )

    @fal.endpoint("/")
    def echo(self, request: Input) -> Input:
        return request


@fal.function(
    machine_type="S",
    requirements=["humanize==4.11.0"],
    keep_alive=9,
    python_version="3.11",
    max_concurrency=2,
    min_concurrency=0,
    max_multiplexing=1,
    request_timeout=33,
    startup_timeout=44,
    regions=["us-east"],
)
def with_options() -> int:
    return 1


@fal.function("conda", packages=["numpy"], channels=["conda-forge"], pip=["six"], machine_type="M")
def in_conda() -> int:
    return 1


@fal.function(kind="container", image=ContainerImage(dockerfile_str="FROM python:3.11\n"), machine_type="S")
def function_in_an_image() -> int:
    return 1
