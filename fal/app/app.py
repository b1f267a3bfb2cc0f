"""The base class of apps."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar, Unpack

from fal.app.billing import BillingComponents, check_declaration
from fal.app.context import RequestContext, current_request
from fal.app.endpoints import BILLING_ATTRIBUTE, Route, route_of
from fal.app.health import HealthCheckConfig
from fal.app.options import Options, check_kind, check_options, nearest_option

if TYPE_CHECKING:
    from fastapi import FastAPI

    from fal.app.clients import AppSpawnInfo
    from fal.app.minimal import MinimalServer
    from fal.app.retries import RetryConfig
    from fal.container import ContainerImage

AGENT_VARIABLE = "IS_ISOLATE_AGENT"
AUTH_MODES = ("public", "private", "shared")
DEFAULT_APP_FILES_IGNORE = [r"\.pyc$", r"__pycache__/", r"\.git/", r"\.DS_Store$"]
_NOT_OF_A_CLASS = frozenset({"serve", "setup_function", "metadata", "health_check_config"})
_DEFAULTS_OF_HOST_KWARGS = ("keep_alive", "resolver", "_scheduler", "_scheduler_options")
_CAPITALIZED = re.compile(r"[A-Z][a-z]*")


def app_name_of(class_name: str) -> str:
    """Return the app name for a class name, by the published rule: TinyApp -> tiny-app, SDXL -> s-d-x-l.

    The rule drops digits; a name without capitals keeps its words (mock_model -> mock-model).
    """
    words = _CAPITALIZED.findall(class_name) or [word for word in class_name.split("_") if word]
    return "-".join(word.lower() for word in words)


class App:
    """A serverless application: subclass it, and deploy the file with `fal deploy`.

        class Greeter(fal.App, keep_alive=300):
            machine_type = "S"
            requirements = ["humanize==4.11.0"]

            def setup(self):
                self.greeting = "hello"

            @fal.endpoint("/")
            def greet(self, request: Input) -> Output:
                return Output(text=f"{self.greeting}, {request.name}")

    Every attribute below can also be a keyword of the class, as `keep_alive` above; `name` is the keyword for
    `app_name`. None means the platform's default.

    Attributes:
        app_name: the app's name; by default it follows from the class's name (Greeter -> greeter).
        app_auth: who may call it: "private" (its owner), "shared" (anybody with a key) or "public". For a new app, None
            means private.
        requirements: packages for pip, as a list, or as a list of lists that are installed one after the other.
        requirements_context_dir: directory that local paths in the requirements are relative to.
        local_python_modules: names of local modules to send along with the app.
        machine_type: the machine, or machines in order of preference.
        num_gpus: GPUs of each runner.
        regions: where runners may be.
        keep_alive: seconds to keep an idle runner.
        min_concurrency, max_concurrency: the fewest and the most runners.
        concurrency_buffer, concurrency_buffer_perc: runners kept above the load, as a number and as a percentage.
        scaling_delay: seconds that a request waits before another runner starts for it.
        max_multiplexing: concurrent requests on one runner.
        request_timeout: seconds after which a request is cut off.
        request_start_timeout: seconds that a request of the owner may wait for a runner; 0 removes the limit.
        startup_timeout: seconds that a runner may take to become ready.
        termination_grace_period_seconds: seconds between a runner's SIGTERM and its SIGKILL.
        metrics_port: the port of /metrics.
        app_files: files and directories to send along, relative to the app's file or `app_files_context_dir`.
        app_files_ignore: regular expressions for paths to leave out.
        image: a container image to run in, instead of a virtual environment.
        secrets: names of the secrets to get, instead of those exposed by default.
        data_mounts: paths such as "/data" that keep what is written to them.
        skip_retry_conditions: failures that are not retried: "timeout", "server_error", "connection_error".
        retry_config: how often queued requests are retried, by kind of failure.
        private_logs: show the logs to the owner alone.
        version: the version that GET /health and /metrics show.
    """

    app_name: ClassVar[str | None] = None
    app_auth: ClassVar[str | None] = None
    requirements: ClassVar[list[str] | list[list[str]]] = []
    requirements_context_dir: ClassVar[str | None] = None
    local_python_modules: ClassVar[list[str]] = []
    machine_type: ClassVar[str | list[str]] = "S"
    num_gpus: ClassVar[int | None] = None
    regions: ClassVar[list[str] | None] = None
    keep_alive: ClassVar[int | None] = 60
    min_concurrency: ClassVar[int | None] = None
    max_concurrency: ClassVar[int | None] = None
    concurrency_buffer: ClassVar[int | None] = None
    concurrency_buffer_perc: ClassVar[int | None] = None
    scaling_delay: ClassVar[int | None] = None
    max_multiplexing: ClassVar[int | None] = None
    request_timeout: ClassVar[int | None] = None
    request_start_timeout: ClassVar[int | None] = None
    startup_timeout: ClassVar[int | None] = None
    termination_grace_period_seconds: ClassVar[int | None] = None
    metrics_port: ClassVar[int | None] = None
    app_files: ClassVar[list[str]] = []
    app_files_ignore: ClassVar[list[str]] = DEFAULT_APP_FILES_IGNORE
    app_files_context_dir: ClassVar[str | None] = None
    kind: ClassVar[str | None] = None
    image: ClassVar[ContainerImage | None] = None
    secrets: ClassVar[list[str] | None] = None
    data_mounts: ClassVar[list[str] | None] = None
    skip_retry_conditions: ClassVar[list[str] | None] = None
    retry_config: ClassVar[RetryConfig | Mapping[str, object] | None] = None
    private_logs: ClassVar[bool | None] = None
    python_version: ClassVar[str | None] = None
    resolver: ClassVar[str | None] = "uv"
    _scheduler: ClassVar[str | None] = "nomad"
    _scheduler_options: ClassVar[dict[str, object] | None] = {"storage_region": "us-east"}
    version: ClassVar[str] = "unknown"

    describes_health: ClassVar[bool] = True

    host_kwargs: ClassVar[dict[str, object]] = {}
    """Options as a mapping, for older apps; an attribute of the same name takes precedence."""

    def __init_subclass__(cls, *, name: str | None = None, **options: Unpack[Options]) -> None:
        super().__init_subclass__()
        owner = f"class {cls.__name__}"
        given: dict[str, object] = {**cls.__dict__.get("host_kwargs", {}), **options}
        for refused in _NOT_OF_A_CLASS & given.keys():
            raise ValueError(f"{owner}: {refused} is an option of functions, not of apps")
        check_options(given, owner)
        if "host_kwargs" in cls.__dict__:
            # As in the published package: a mapping of the app's own lacks the mapping's usual defaults.
            given = {**dict.fromkeys(_DEFAULTS_OF_HOST_KWARGS), **given}
        for key, value in given.items():
            if key not in cls.__dict__:
                setattr(cls, key, value)
        if cls.__init__ is not App.__init__:
            raise ValueError(f"{owner} has an __init__: an app is made by the platform; do its work in setup()")
        if "app_name" not in cls.__dict__:
            cls.app_name = name or cls.app_name or app_name_of(cls.__name__)
        if cls.app_auth is not None and cls.app_auth not in AUTH_MODES:
            raise ValueError(f"{owner}: app_auth is {cls.app_auth!r}: give one of {', '.join(AUTH_MODES)}")
        cls.host_kwargs = cls.options()
        check_options(cls.host_kwargs, owner)
        check_kind(cls.host_kwargs, owner)

    def __init__(self, *, _allow_init: bool = False) -> None:
        if not _allow_init and not os.environ.get(AGENT_VARIABLE):
            name = type(self).__name__
            raise RuntimeError(f"{name} is made inside of a runner: deploy it, or try it here with {name}.run_local()")

    @classmethod
    def options(cls) -> dict[str, object]:
        """Return the options that are set, by name, including the health check.

        Raises:
            ValueError: more than one endpoint is the health check.
        """
        found = {key: getattr(cls, key, None) for key in Options.__annotations__ if key not in _NOT_OF_A_CLASS}
        found["health_check_config"] = cls.get_health_check_config()
        return {
            key: value for key, value in found.items() if value is not None and (value != [] or key == "machine_type")
        }

    @classmethod
    def near_misses(cls) -> dict[str, str]:
        """Return attributes that look like misspelt options. Each has the option that it resembles."""
        known = set(dir(App)) | Options.__annotations__.keys()
        own = {name for base in cls.__mro__ if base is not App and issubclass(base, App) for name in vars(base)}
        plain = {name for name in own - known if not name.startswith("_") and not callable(getattr(cls, name))}
        found = {name: nearest_option(name) for name in sorted(plain)}
        return {name: option for name, option in found.items() if option is not None}

    @classmethod
    def get_health_check_config(cls) -> HealthCheckConfig | None:
        """Return the health check and its path; None if there is none.

        Raises:
            ValueError: more than one is.
        """
        checks = [(route.path, route.health_check) for route, _ in _routes_of(cls) if route.health_check is not None]
        if len(checks) > 1:
            paths = ", ".join(path for path, _ in checks)
            raise ValueError(f"class {cls.__name__} has several health checks ({paths}): keep one")
        return HealthCheckConfig.of(*checks[0]) if checks else None

    @classmethod
    def get_endpoints(cls) -> list[str]:
        """Return the paths that the app serves."""
        return [route.path for route, _ in _routes_of(cls)]

    def collect_routes(self) -> dict[Route, Callable[..., object]]:
        """Return the routes, sorted by path, and their bound methods."""
        return {route: getattr(self, name) for route, name in _routes_of(type(self))}

    @classmethod
    def build_metadata(cls) -> dict[str, object]:
        """Return the metadata of the revision: `openapi`, and `billing_components` if there are any."""
        billing = cls.get_billing_components()
        return {
            "openapi": cls(_allow_init=True).openapi(),
            **({"billing_components": billing} if billing else {}),
        }

    @classmethod
    def get_billing_components(cls) -> dict[str, BillingComponents]:
        """Return the endpoints' billing declarations, by path.

        Raises:
            ValueError: a declaration is malformed.
        """
        found = {route.path: getattr(getattr(cls, name), BILLING_ATTRIBUTE, None) for route, name in _routes_of(cls)}
        return {path: check_declaration(path, each.declaration()) for path, each in found.items() if each is not None}

    def openapi(self) -> dict[str, object]:
        """Return the OpenAPI description."""
        from fal.app.api import build_api

        return build_api(self).openapi()

    def setup(self) -> object:
        """Prepare to serve: load models, open connections. May be `async def`. No request arrives before it ends."""

    def teardown(self) -> object:
        """Clean up after the last request. May be `async def`."""

    def handle_exit(self) -> object:
        """React to the runner's stop while requests are still in flight. May be `async def`."""

    def health(self) -> object:
        """Return the answer of GET /health. May be `async def`."""
        return {"version": self.version}

    def provide_hints(self) -> list[str] | None:
        """Return names of the things that this runner has loaded, or None.

        Requests with such a hint prefer this runner.
        """
        return None

    @asynccontextmanager
    async def lifespan(self, app: FastAPI | MinimalServer) -> AsyncGenerator[None, None]:
        """Run setup(), serve, then run teardown()."""
        os.environ["FAL_RUNNER_STATE"] = "SETUP"
        await _awaited(self.setup())
        os.environ["FAL_RUNNER_STATE"] = "RUNNING"
        try:
            yield
        finally:
            os.environ["FAL_RUNNER_STATE"] = "TERMINATING"
            await _awaited(self.teardown())

    @property
    def current_request(self) -> RequestContext | None:
        """The current request; None outside of a request."""
        return current_request()

    async def serve(
        self, *, port: int = 8080, metrics_port: int | None = 9090, limit_max_requests: int | None = None
    ) -> None:
        """Serve until SIGTERM; see `fal.app.server.serve`."""
        from fal.app.server import serve

        await serve(
            self,
            version=self.version,
            port=port,
            metrics_port=metrics_port,
            limit_max_requests=limit_max_requests,
        )

    @classmethod
    def spawn(cls) -> AppSpawnInfo:
        """Serve the app in a runner without deploying it. It is served until this process ends.

        The file of the class is sent; if this script is that file, it needs `if __name__ == "__main__":`.

        Returns:
            A handle: `wait()` waits until the app serves; it also has `url`, `logs`, and `stream.cancel()` to end it.

        Raises:
            DeployError: the class is not at the top level of a file.
        """
        from fal.app.clients import AppSpawnInfo
        from fal.app.spawning import spawn

        return AppSpawnInfo(spawn(cls, cls.__qualname__))

    @classmethod
    def run_local(
        cls, *, exposed_port: int | None = None, exposed_metrics_port: int | None = None
    ) -> Coroutine[None, None, None] | None:
        """Serve the app in this process until Ctrl-C. In a running event loop, return the coroutine to await.

        Args:
            exposed_port: the port; 8080 by default.
            exposed_metrics_port: the port of /metrics; the class's `metrics_port` or 9090 by default.
        """
        from fal.app.targets import AppTarget, run_here

        return run_here(AppTarget(cls), exposed_port=exposed_port, exposed_metrics_port=exposed_metrics_port)


def _routes_of(cls: type[App]) -> list[tuple[Route, str]]:
    members = inspect.getmembers(cls, inspect.isfunction)
    found = [(route, name) for name, method in members if (route := route_of(method)) is not None]
    by_path: dict[str, str] = {}
    for route, name in found:
        if route.path in by_path:
            raise ValueError(
                f"class {cls.__name__}: {route.path} is served by both {by_path[route.path]} and {name}: "
                "give each endpoint a path of its own"
            )
        by_path[route.path] = name
    return sorted(found, key=lambda item: item[0].path)


async def _awaited(result: object) -> None:
    if inspect.isawaitable(result):
        await result
