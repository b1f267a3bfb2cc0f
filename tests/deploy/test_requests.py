"""The requests of a deploy and a run. They equal the published client's, field by field."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Any

import pytest

from fal.deploy.preparation import prepare
from fal.deploy.requests import asking_scheduler, build_request, machine_requirements, register_request, run_request
from fal_grpc.adapter.app import AuthMode, DeploymentStrategy, app_name
from fal_grpc.adapter.revision import RegisterRequest, RetryCondition
from fal_grpc.adapter.run import HealthCheckConfig, HealthCheckMethod, MachineRequirements

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
SERVING = [f"fastapi=={version('fastapi')}", f"pydantic=={version('pydantic')}", "uvicorn", "httptools", "uvloop"]

CODE = """
import fal
from pydantic import BaseModel


class Input(BaseModel):
    a: int = 1


class TinyApp(fal.App):
    requirements = ["x==1"]

    @fal.endpoint("/")
    def run(self, request: Input) -> Input: ...


class Full(fal.App, keep_alive=300, name="full-one", private_logs=True):
    app_auth = "public"
    machine_type = ["GPU-H100", "GPU-A100"]
    num_gpus = 2
    requirements = [["a==1"], ["b==2"]]
    regions = ["us-east"]
    min_concurrency = 1
    max_concurrency = 5
    concurrency_buffer = 2
    concurrency_buffer_perc = 20
    scaling_delay = 5
    max_multiplexing = 3
    request_timeout = 100
    request_start_timeout = 0
    startup_timeout = 200
    termination_grace_period_seconds = 20
    metrics_port = 9999
    secrets = ["A"]
    data_mounts = ["/data"]
    skip_retry_conditions = ["timeout"]
    retry_config = fal.RetryConfig(server_error=2)

    @fal.endpoint("/well", health_check=fal.HealthCheck(timeout_seconds=4))
    def well(self) -> None: ...

    @fal.realtime("/realtime")
    def realtime(self, request: Input) -> Input: ...


class Boxed(fal.App):
    image = fal.ContainerImage("FROM x", secrets={"S": "v"})

    @fal.endpoint("/")
    def run(self) -> None: ...


@fal.function(machine_type="M", serve=True)
def served() -> str: ...


def prepared():
    return 1


@fal.function(setup_function=prepared)
def plain(value): ...


@fal.function("conda", packages=["p"], channels=["c"], serve=True)
def snake() -> str: ...
"""


@pytest.fixture
def app(tmp_path, monkeypatch):
    (tmp_path / "app.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return lambda symbol: prepare(("app.py", symbol))


def register(app, **options) -> RegisterRequest:
    given = {
        "strategy": "rolling",
        "reset_scale": False,
        "environment_name": None,
        "attach_to_deployment": None,
        "metadata": app.metadata,
    }
    return register_request(app, **{**given, **options})


def test_a_class_app_with_defaults(app):
    request = register(app("TinyApp"))
    [environment] = request.environments
    assert (environment.kind, environment.force) == ("virtualenv", False)
    assert environment.configuration == {
        "python_version": HERE,
        "requirements": ["x==1", *SERVING],
        "resolver": "uv",
    }
    assert request.machine == MachineRequirements(
        machine_types=("S",),
        keep_alive=60,
        exposed_port=8080,
        metrics_port=9090,
        scheduler="nomad",
        scheduler_options={"storage_region": "us-east"},
    )
    assert request.function is not None
    assert (request.function.method, request.entrypoint) == ("cloudpickle", None)
    assert (request.application_name, request.auth_mode, request.environment_name) == ("tiny-app", None, None)
    assert (request.deployment_strategy, request.scale) == (DeploymentStrategy.ROLLING, False)
    assert set(request.metadata) == {"openapi"}
    assert request.source_code == CODE
    assert (request.secrets, request.data_mounts, request.files, request.retry_config) == (None, (), (), None)
    assert (request.build_environment, request.attach_to_deployment) == (False, None)
    assert (request.run_on_main_thread, request.env_id, request.health_check) == (None, None, None)


def test_a_class_app_with_everything(app):
    request = register(
        app("Full"), strategy="recreate", reset_scale=True, environment_name="staging", attach_to_deployment=False
    )
    [environment] = request.environments
    assert environment.configuration["requirements"] == [["a==1"], ["b==2"], [*SERVING, "websockets", "msgpack"]]
    assert request.machine == MachineRequirements(
        machine_types=("GPU-H100", "GPU-A100"),
        num_gpus=2,
        keep_alive=300,
        exposed_port=8080,
        metrics_port=9999,
        scheduler="nomad",
        scheduler_options={"storage_region": "us-east"},
        min_concurrency=1,
        max_concurrency=5,
        max_multiplexing=3,
        concurrency_buffer=2,
        concurrency_buffer_perc=20,
        scaling_delay=5,
        request_timeout=100,
        request_start_timeout=0,
        startup_timeout=200,
        valid_regions=("us-east",),
    )
    assert (request.application_name, request.environment_name) == ("full-one--staging", "staging")
    assert request.auth_mode is AuthMode.PUBLIC
    assert (request.deployment_strategy, request.scale) == (DeploymentStrategy.RECREATE, True)
    assert request.attach_to_deployment is False
    assert (request.private_logs, request.termination_grace_period_seconds) == (True, 20)
    assert request.health_check == HealthCheckConfig(path="/well", timeout_seconds=4, method=HealthCheckMethod.POST)
    assert (request.secrets, request.data_mounts) == (("A",), ("/data",))
    assert request.skip_retry_conditions == (RetryCondition.TIMEOUT,)
    assert request.retry_config == '{"server_error": {"retries": 2}}'


def test_a_container(app):
    request = register(app("Boxed"))
    [environment] = request.environments
    assert environment.kind == "container"
    assert set(environment.configuration) == {"image", "python_version", "requirements", "resolver"}
    image: Any = environment.configuration["image"]
    assert image["secrets"] == {"S": "v"}
    assert request.function is not None
    assert b"'v'" not in request.function.definition
    assert "'v'" not in repr(request)


def test_a_served_function(app):
    request = register(app("served"))
    assert request.environments[0].configuration == {"python_version": HERE, "requirements": SERVING}
    assert request.machine == MachineRequirements(
        machine_types=("M",), keep_alive=10, exposed_port=8080, metrics_port=9090, scheduler_options={}
    )
    openapi: Any = request.metadata["openapi"]
    assert [*openapi["paths"]] == ["/"]


def test_a_function_that_serves_nothing(app):
    request = run_request(app("plain"), environment_name="staging", build_environment=False)
    assert request.environments[0].configuration == {"python_version": HERE}
    assert request.machine == MachineRequirements(machine_types=("XS",), keep_alive=10, scheduler_options={})
    assert (request.application_name, request.auth_mode) == ("plain--staging", AuthMode.PUBLIC)
    assert request.setup_func is not None
    assert register(app("plain")).metadata == {}


def test_conda_gets_what_serves_through_pip(app):
    configuration = register(app("snake")).environments[0].configuration
    assert configuration == {"python_version": HERE, "packages": ["p"], "channels": ["c"], "pip": SERVING}


def test_a_build_says_what_matters_to_it(app):
    request = build_request(app("Full"), environment_name="staging", no_cache=True)
    assert request.environments[0].force
    assert (request.application_name, request.environment_name) == ("full-one--staging", "staging")
    assert request.secrets == ("A",)
    assert not build_request(app("Full"), environment_name=None, no_cache=False).environments[0].force


def test_every_request_becomes_a_message(app):
    from fal_grpc.adapter import revision, run

    for symbol in ("TinyApp", "Full", "Boxed", "served", "plain", "snake"):
        prepared = app(symbol)
        assert revision.register_request(register(prepared)).application_name == prepared.app_name
        assert revision.build_request(build_request(prepared, environment_name=None, no_cache=False)).environments
        assert run.run_request(run_request(prepared, environment_name=None, build_environment=None)).environments


@pytest.mark.parametrize(("environment", "name"), [(None, "a"), ("main", "a"), ("", "a"), ("staging", "a--staging")])
def test_names_carry_their_environment(environment, name):
    assert app_name("a", environment) == name
    assert app_name(name, environment) == name


def test_wishes_for_the_scheduler_are_added_to_those_of_the_code(app):
    asked = asking_scheduler(app("TinyApp"), forward_compat=True)
    assert machine_requirements(asked).scheduler_options == {"storage_region": "us-east", "forward_compat": True}
    assert machine_requirements(asking_scheduler(app("plain"), x=1)).scheduler_options == {"x": 1}
