"""Arguments and results of deploys and runs, without I/O."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypedDict

from fal.deploy.errors import BuildFailedError, DeployError, UserFunctionError
from fal.deploy.preparation import PreparedApp
from fal.deploy.serving import WayToServe
from fal_grpc.adapter.log import Log, LogLevel, LogSource
from fal_grpc.adapter.revision import BuildResult, RegisterRequest, RegisterResult
from fal_grpc.adapter.run import ReturnValue, ServiceURLs
from fal_grpc.errors import DOMAIN, UnavailableError

_SHOWN_LINES = 20
# Every app answers this path; an endpoint written by its author is a POST.
_HEALTH = ("/health", ("GET",))
_METHODS = ("get", "post", "put", "patch", "delete", "head", "options")
_PICKLES = ("pickle", "cloudpickle")


class DeployOptions(TypedDict, total=False):
    """The options of `deploy`."""

    app_name: str | None
    auth: str | None
    strategy: str
    reset_scale: bool
    attach_to_deployment: bool | None
    force_env_build: bool
    no_cache: bool
    environment_name: str | None
    message: str | None
    annotations: Mapping[str, str] | None
    result_handler: Callable[[RegisterResult], object] | None
    build_result_handler: Callable[[BuildResult], object] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A path that an app answers.

    Attributes:
        path: the URL path below the app's own.
        methods: the HTTP methods in upper case; empty for a WebSocket.
        url: its address; ws:// or wss:// for a WebSocket.
    """

    path: str
    methods: tuple[str, ...]
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentResult:
    """The result of a deploy.

    Attributes:
        revision: the new revision's id.
        app_name: the app's name, without an environment's suffix.
        urls: the address of each path, for each of "playground", "sync" and "async".
        log_url: the page that shows its logs.
        auth_mode: who may call it; "private" if the deploy did not say.
        endpoints: the paths that the app answers, each once, with its method and address.
        queue_url: the base address of queued requests.
        code: the transport of the code: "modules", "pickle", or "" for an import path or a bare image.
        sources: the sources sent as modules, by their paths below the directory to import from.
        serving: how it is served; None for an import path or a bare image.
    """

    revision: str
    app_name: str
    urls: dict[str, dict[str, str]]
    log_url: str
    auth_mode: str
    endpoints: tuple[Endpoint, ...] = ()
    queue_url: str = ""
    code: str = ""
    sources: tuple[str, ...] = ()
    serving: WayToServe | None = None


def endpoint_paths(metadata: Mapping[str, object]) -> list[str]:
    """Return the paths in an app's OpenAPI document."""
    openapi = metadata.get("openapi")
    paths = openapi.get("paths") if isinstance(openapi, Mapping) else None
    return [str(path) for path in paths] if isinstance(paths, Mapping) and paths else ["/"]


def endpoints_of(metadata: Mapping[str, object], services: ServiceURLs) -> tuple[Endpoint, ...]:
    """Return the endpoints in an app's OpenAPI document. Without a document, it is a POST to its root."""
    openapi = metadata.get("openapi")
    paths = openapi.get("paths") if isinstance(openapi, Mapping) else None
    if not isinstance(paths, Mapping) or not paths:
        return (Endpoint(path="/", methods=("POST",), url=f"{services.run}/"),)
    found = (_endpoint(str(path), item, services) for path, item in paths.items())
    return tuple(endpoint for endpoint in found if (endpoint.path, endpoint.methods) != _HEALTH)


def _endpoint(path: str, item: object, services: ServiceURLs) -> Endpoint:
    described: Mapping[object, object] = item if isinstance(item, Mapping) else {}
    if "x-fal-protocol" in described:
        # OpenAPI does not describe WebSockets: a POST described beside this one is not served.
        return Endpoint(path=path, methods=(), url=f"ws{services.run.removeprefix('http')}{path}")
    methods = tuple(method.upper() for method in _METHODS if method in described)
    return Endpoint(path=path, methods=methods, url=f"{services.run}{path}")


def endpoint_urls(services: ServiceURLs, endpoints: list[str]) -> dict[str, dict[str, str]]:
    """Return the address of each path, by kind of call."""
    bases = {"playground": services.playground, "sync": services.run, "async": services.queue}
    return {kind: {path: f"{base}{path}" for path in endpoints} for kind, base in bases.items()}


class _PlainUnpickler(pickle.Unpickler):
    """Unpickles texts, numbers, lists, dicts and the like. They need no class and so cannot run code."""

    def find_class(self, module_name: str, global_name: str, /) -> object:
        raise pickle.UnpicklingError(f"the pickle refers to {module_name}.{global_name}")


class _ExceptionUnpickler(pickle.Unpickler):
    """Unpickles plain data and exceptions whose classes are imported already. It imports and calls nothing else."""

    def find_class(self, module_name: str, global_name: str, /) -> object:
        found = getattr(sys.modules.get(module_name), global_name, None)
        if isinstance(found, type) and issubclass(found, Exception):
            return found
        raise pickle.UnpicklingError(f"the pickle refers to {module_name}.{global_name}")


def _exception_of(value: ReturnValue) -> Exception | None:
    """Return the function's exception with the traceback as a note. None if it cannot be read.

    Runners send classes of the function's own file with their code, which is not read.
    """
    if value.method not in _PICKLES:
        return None
    try:
        found: object = _ExceptionUnpickler(io.BytesIO(value.definition)).load()
    except Exception:  # noqa: BLE001 - a constructor of any exception may raise anything
        return None
    if not isinstance(found, Exception):
        return None
    if value.traceback:
        found.add_note(f"In the runner:\n{value.traceback.rstrip()}")
    return found


def read_result(value: ReturnValue, *, allow_pickle: bool = False) -> object:
    """Return the object that a function returned.

    Args:
        value: the received result.
        allow_pickle: also read pickles of objects other than plain data, which lets the sender run code here.

    Raises:
        UserFunctionError: the function raised an exception, which is the cause if this program has its class.
        FalError: it is a pickle of objects other than plain data, and `allow_pickle` is False.
    """
    if value.was_it_raised:
        name = value.exception_type_name or "an exception"
        said = f": {value.exception_message}" if value.exception_message else ""
        raise UserFunctionError(
            f"the function raised {name}{said}",
            exception_type_name=value.exception_type_name,
            exception_message=value.exception_message,
            traceback=value.traceback,
        ) from _exception_of(value)
    if value.method in _PICKLES and not allow_pickle:
        try:
            plain: object = _PlainUnpickler(io.BytesIO(value.definition)).load()
        except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError):
            return value.load()  # raises, with a message that says what to do
        return plain
    return value.load(allow_pickle=allow_pickle)


def unfinished_deploy(request: RegisterRequest, *, stored: str | None, error: UnavailableError) -> DeployError:
    """Return the error for a deploy that came to no end. It has the known state and how to see the rest.

    Args:
        request: the deploy.
        stored: the revision, if the controller confirmed that it is stored.
        error: how the connection broke, or why the controller cannot deploy now.
    """
    app, refused = request.application_name, error.domain == DOMAIN
    cause = (
        f"the controller cannot follow it now ({error.details})"
        if refused
        else f"the connection broke ({error.details})"
    )
    if stored is not None:
        return DeployError(
            f"{cause}, and the deploy of {app} to revision {stored} goes on: `fal apps get {app}` shows how far it is"
        )
    if refused:
        return DeployError(
            f"the controller cannot deploy {app} now: {error.details}\nTry again soon; `fal apps list-rev {app}` shows "
            "the revisions that it has"
        )
    revision = f"revision {request.revision_id}" if request.revision_id else "a new revision"
    return DeployError(
        f"{cause}, and whether {app} has {revision} is not known: `fal apps list-rev {app}` shows it. To deploy again "
        "does no harm"
    )


def build_failure(app: PreparedApp, lines: Sequence[str], *, shown: bool) -> BuildFailedError:
    """Return the error for a failed build.

    Args:
        app: the app.
        lines: the log of the build.
        shown: whether the log was already shown; it is then not repeated.
    """
    said = "see its log above this" if shown else "the end of its log:\n" + "\n".join(lines[-_SHOWN_LINES:])
    ours = app.serving.named_in(lines) if app.serving else []
    note = f"\nadded to your requirements by the deploy: {', '.join(ours)}" if ours else ""
    return BuildFailedError(f"the environment of {app.app_name} could not be built: {said}{note}")


def said_between(app: PreparedApp) -> BuildResult:
    """Return the message between a failed build and the next one. The app is the one that is built next."""
    serving = app.serving
    assert serving is not None
    line = Log(
        timestamp=datetime.now(UTC),
        level=LogLevel.WARNING,
        message=f"{serving.why()}: building again with {', '.join(serving.added) or 'its requirements alone'}",
        source=LogSource.BUILDER,
    )
    return BuildResult(env_id="", state=None, logs=(line,))
