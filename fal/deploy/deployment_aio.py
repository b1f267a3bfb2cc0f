"""Deploys apps, and runs them without deploying, for asyncio."""

# The source of fal/deploy/deployment.py: run `make gen` after a change.

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

from fal.deploy.errors import BuildFailedError, DeployError
from fal.deploy.preparation import PreparedApp, prepare
from fal.deploy.project import STRATEGIES
from fal.deploy.requests import (
    asking_scheduler,
    build_request,
    builds_alike,
    check_types,
    checked_notes,
    register_request,
    run_request,
)
from fal.deploy.results import (
    DeploymentResult,
    DeployOptions,
    build_failure,
    endpoint_paths,
    endpoint_urls,
    endpoints_of,
    read_result,
    said_between,
    unfinished_deploy,
)
from fal.deploy.sources import METHOD
from fal.deploy.upload_aio import AsyncFileStore, AsyncSender
from fal_grpc.adapter.revision import BuildResult, DeployPlan, RegisterRequest, RegisterResult
from fal_grpc.adapter.run import ReturnValue, RunResult, RunState
from fal_grpc.aio import AsyncController
from fal_grpc.backoff import Backoff
from fal_grpc.errors import FailedPreconditionError, UnavailableError

_SHOWN_LINES = 20
_REPEATS = 4
_PAUSES = Backoff(first_seconds=0.25, longest_seconds=4)


class AsyncClient(Protocol):
    """The part of a client that a deploy uses. `AsyncServerlessClient` is one."""

    async def controller(self) -> AsyncController:
        """Return the controller's calls."""
        ...

    async def rest(self) -> AsyncSender:
        """Return the HTTP side of the same controller."""
        ...


async def deploy(
    client: AsyncClient,
    app_ref: str | tuple[str | None, str | None] | None = None,
    *,
    app_name: str | None = None,
    auth: str | None = None,
    strategy: str = "rolling",
    reset_scale: bool = False,
    attach_to_deployment: bool | None = None,
    force_env_build: bool = False,
    no_cache: bool = False,
    environment_name: str | None = None,
    message: str | None = None,
    annotations: Mapping[str, str] | None = None,
    result_handler: Callable[[RegisterResult], object] | None = None,
    build_result_handler: Callable[[BuildResult], object] | None = None,
) -> DeploymentResult:
    """Deploy an app.

    Args:
        client: the controller to deploy to.
        app_ref: "file.py", "file.py::Name", a name from pyproject.toml, or None to find the only app.
        app_name: deploy it under this name.
        auth: who may call it: "private", "public" or "shared"; None keeps the app's setting.
        strategy: "rolling" moves the app once the new revision is ready, "recreate" at once. pyproject.toml may
            override "rolling".
        reset_scale: apply the code's scaling settings even if the app has its own.
        attach_to_deployment: True waits until the app has moved, False does not; None leaves the choice to the
            controller. Only for rolling deploys.
        force_env_build, no_cache: build the environment again; two names for one option.
        environment_name: the environment to deploy to; None means "main".
        message: a note on the revision.
        annotations: notes by name.
        result_handler: gets each message of the deploy, with its log lines.
        build_result_handler: gets each message of the build, which `result_handler` does not.

    Raises:
        DeployError: it could not be prepared or built, or the response was incomplete; see the subclasses.
        CallError: the controller refused, or cannot be reached.
    """
    check_types(
        texts={
            **({} if isinstance(app_ref, tuple) else {"app_ref": app_ref}),
            "app_name": app_name,
            "auth": auth,
            "strategy": strategy,
            "environment_name": environment_name,
            "message": message,
        },
        flags={
            "reset_scale": reset_scale,
            "attach_to_deployment": attach_to_deployment,
            "force_env_build": force_env_build,
            "no_cache": no_cache,
        },
        functions={"result_handler": result_handler, "build_result_handler": build_result_handler},
        annotations=annotations,
    )
    notes = checked_notes(message, annotations)
    # Loading an app file runs its code, and hashing files reads them: both block.
    app = await asyncio.to_thread(prepare, app_ref, app_name=app_name, auth=auth)
    chosen = app.strategy if strategy == "rolling" and app.strategy else strategy
    if chosen not in STRATEGIES:
        raise DeployError(f"strategy is {chosen!r}: give one of {', '.join(STRATEGIES)}")
    if attach_to_deployment is not None and chosen != "rolling":
        raise DeployError(
            "attaching and detaching are for rolling deploys: leave it out, or use the strategy 'rolling'"
        )
    app = await build(
        client,
        app,
        environment_name=environment_name,
        no_cache=no_cache or force_env_build,
        handler=build_result_handler,
    )
    return await deploy_built(
        client,
        app,
        strategy=chosen,
        reset_scale=reset_scale or app.reset_scale,
        attach_to_deployment=attach_to_deployment,
        environment_name=environment_name,
        notes=notes,
        result_handler=result_handler,
    )


async def deploy_built(
    client: AsyncClient,
    app: PreparedApp,
    *,
    strategy: str = "rolling",
    reset_scale: bool = False,
    attach_to_deployment: bool | None = None,
    environment_name: str | None = None,
    notes: Mapping[str, object] | None = None,
    result_handler: Callable[[RegisterResult], object] | None = None,
) -> DeploymentResult:
    """Deploy an app whose environment is built.

    Args:
        client: the controller to deploy to.
        app: the result of `build`.
        strategy: "rolling" or "recreate".
        reset_scale, attach_to_deployment, environment_name: as for `deploy`.
        notes: parts of the revision's metadata, from `checked_notes`.
        result_handler: as for `deploy`.

    Raises:
        DeployError: the response was incomplete; see the subclasses.
        CallError: the controller refused, or cannot be reached.
    """
    metadata = await fetch_metadata(client, app, environment_name) if app.entrypoint else app.metadata
    request = register_request(
        app,
        strategy=strategy,
        reset_scale=reset_scale,
        environment_name=environment_name,
        attach_to_deployment=attach_to_deployment,
        metadata={**metadata, **(notes or {})},
        # A controller that does not say how it takes code ignores this id, and a repeated call would deploy twice.
        revision_id=str(uuid.uuid4()) if app.methods else None,
    )
    return await _register(client, request, app, metadata, result_handler)


async def plan(
    client: AsyncClient,
    app_ref: str | tuple[str | None, str | None] | None = None,
    *,
    app_name: str | None = None,
    auth: str | None = None,
    strategy: str = "rolling",
    reset_scale: bool = False,
    environment_name: str | None = None,
) -> DeployPlan:
    """Return what `deploy` would do with the same arguments. Nothing is uploaded, built or changed.

    Raises:
        DeployError: the app could not be prepared; see the subclasses.
        UnimplementedError: the controller does not support plans.
        CallError: the controller refused for another reason, or cannot be reached.
    """
    app = await asyncio.to_thread(prepare, app_ref, app_name=app_name, auth=auth)
    request = register_request(
        replace(app, methods=(METHOD,)),  # a controller that supports plans takes modules
        strategy=app.strategy if strategy == "rolling" and app.strategy else strategy,
        reset_scale=reset_scale or app.reset_scale,
        environment_name=environment_name,
        attach_to_deployment=None,
        metadata=app.metadata,
    )
    controller = await client.controller()
    return await controller.plan_application(request)


async def build(
    client: AsyncClient,
    app: PreparedApp,
    *,
    environment_name: str | None,
    no_cache: bool = False,
    built: PreparedApp | None = None,
    handler: Callable[[BuildResult], object] | None = None,
) -> PreparedApp:
    """Send an app's files and build its environment unless already built.

    Args:
        client: the controller to send it to.
        app: the app. If its requirements conflict with the packages that serve it, it is built again with the next
            way to serve it.
        environment_name: the environment to build for; None means "main".
        no_cache: build it again.
        built: the previous result for this app: its files, and its environment if it is unchanged, are not checked
            again.
        handler: gets each message of the build, with its log lines.

    Returns:
        The app as it was built, with the ways in which the controller's runners load code.

    Raises:
        UploadError: a file could not be sent.
        BuildFailedError: it could not be built.
        CallError: the controller refused, or cannot be reached.
    """
    sent = {file.hash for file in built.files} if built is not None else set[str]()
    files = [file for file in app.files if file.hash not in sent]
    if files:
        await AsyncFileStore(await client.rest()).ensure(files)
    if built is not None and not no_cache and builds_alike(app, built):
        return replace(app, methods=built.methods)
    while True:
        lines: list[str] = []
        try:
            return await _built(client, app, environment_name, lines, no_cache=no_cache, handler=handler)
        except BuildFailedError:
            if not app.other_ways or app.serving is None or not app.serving.is_blamed(lines):
                raise
        app = app.served_otherwise(app.serving.conflict_in(lines) or app.serving.cause)
        if handler is not None:
            handler(said_between(app))


async def _built(
    client: AsyncClient,
    app: PreparedApp,
    environment_name: str | None,
    lines: list[str],
    *,
    no_cache: bool,
    handler: Callable[[BuildResult], object] | None,
) -> PreparedApp:
    """Build an environment once, and append the log's lines to `lines`."""
    request = build_request(app, environment_name=environment_name, no_cache=no_cache)
    controller = await client.controller()
    async with aclosing(controller.build_environment(request)) as stream:
        try:
            async for result in stream:
                lines.extend(log.message for log in result.logs)
                if handler is not None:
                    handler(result)
                if result.state is RunState.SUCCESS:
                    return replace(app, methods=result.callable_methods)
                if result.state is RunState.INTERNAL_FAILURE:
                    raise build_failure(app, lines, shown=handler is not None)
        except FailedPreconditionError as error:
            if not lines or lines[-1] not in error.details:
                raise
            raise build_failure(app, lines, shown=handler is not None) from error
    raise BuildFailedError(f"the build of {app.app_name}'s environment ended without reporting success: try again")


async def fetch_metadata(client: AsyncClient, app: PreparedApp, environment_name: str | None) -> Mapping[str, object]:
    """Fetch the description of an app that is an import path. It comes from a run in the app's own environment.

    Raises:
        DeployError: the response is not a description.
        CallError: the controller refused, or cannot be reached.
    """
    request = run_request(app, environment_name=environment_name, build_environment=False, attribute="build_metadata")
    lines: list[str] = []
    controller = await client.controller()
    async with aclosing(controller.run(request)) as stream:
        try:
            described = read_result(
                await _returned(stream, lambda found: lines.extend(log.message for log in found.logs))
            )
        except DeployError as error:
            said = "\n".join(lines[-_SHOWN_LINES:])
            raise DeployError(
                f"{app.entrypoint}.build_metadata could not be called: {error}\n{said}".rstrip()
            ) from error
    if not isinstance(described, Mapping):
        raise DeployError(f"{app.entrypoint}.build_metadata returned no mapping: is it a fal.App or a fal.function?")
    return described


async def run(
    client: AsyncClient,
    func_ref: str | tuple[str | None, str | None] | None = None,
    *,
    arguments: Sequence[object] = (),
    keywords: Mapping[str, object] | None = None,
    app_name: str | None = None,
    auth: str | None = None,
    machine_type: str | Sequence[str] | None = None,
    limit_max_requests: int | None = None,
    forward_compat: bool = False,
    force_env_build: bool = False,
    no_cache: bool = False,
    environment_name: str | None = None,
    allow_pickle: bool = False,
    result_handler: Callable[[RunResult], object] | None = None,
    build_result_handler: Callable[[BuildResult], object] | None = None,
) -> object:
    """Run a function and return its result, or serve an app. An app is served until this call is interrupted.

    Args:
        client: the controller to run it on.
        func_ref: like `app_ref` of `deploy`.
        arguments, keywords: the function's arguments.
        app_name: serve and log it under this name.
        auth: who may call the served app; "public" by default, whatever the code says.
        machine_type: overrides the code's.
        limit_max_requests: end an app after this many requests.
        forward_compat: ask the scheduler for a machine with newer drivers.
        force_env_build, no_cache: build the environment again; two names for one option.
        environment_name: the environment to run in; None means "main".
        allow_pickle: read a result that is more than plain data; only from a controller that may run code here.
        result_handler: gets each message of the run, with its log lines and the addresses that it serves, if any.
        build_result_handler: gets each message of the build.

    Raises:
        UserFunctionError: the function raised an exception.
        DeployError: it could not be prepared, built or run; see the subclasses.
        CallError: the controller refused, or cannot be reached.
    """
    app = await asyncio.to_thread(
        prepare,
        func_ref,
        app_name=app_name,
        auth=auth or "public",
        machine_type=machine_type,
        arguments=tuple(arguments),
        keywords=keywords,
        limit_max_requests=limit_max_requests,
    )
    if forward_compat:
        app = asking_scheduler(app, forward_compat=True)
    app = await build(
        client,
        app,
        environment_name=environment_name,
        no_cache=no_cache or force_env_build,
        handler=build_result_handler,
    )
    request = run_request(app, environment_name=environment_name, build_environment=False)
    serves = app.exposed_port is not None or app.function is None
    controller = await client.controller()
    async with aclosing(controller.run(request)) as stream:
        # Every run sends addresses, but nothing answers at those of a function that is not served.
        shown = stream if serves else (replace(result, service_urls=None) async for result in stream)
        return read_result(await _returned(shown, result_handler), allow_pickle=allow_pickle)


async def _register(
    client: AsyncClient,
    request: RegisterRequest,
    app: PreparedApp,
    metadata: Mapping[str, object],
    handler: Callable[[RegisterResult], object] | None,
) -> DeploymentResult:
    """Deploy. Repeat the call if the link breaks; the controller recognizes it by the revision's id."""
    stored: list[str] = []

    def handle(result: RegisterResult) -> None:
        if result.registered is not None:
            stored.append(result.registered.application_id)
        if handler is not None:
            handler(result)

    failures = 0
    while True:
        controller = await client.controller()
        try:
            async with aclosing(controller.register_application(request)) as stream:
                return await _registered(stream, app, metadata, handle)
        except UnavailableError as error:
            failures += 1
            if request.revision_id is None or failures > _REPEATS:
                raise unfinished_deploy(request, stored=stored[0] if stored else None, error=error) from error
        await asyncio.sleep(_PAUSES.pause(failures))


async def _registered(
    stream: AsyncIterator[RegisterResult],
    app: PreparedApp,
    metadata: Mapping[str, object],
    handler: Callable[[RegisterResult], object] | None,
) -> DeploymentResult:
    async for result in stream:
        if handler is not None:
            handler(result)
        if result.application_id is None:
            continue
        if result.service_urls is None:
            raise DeployError(f"{app.app_name} was deployed as {result.application_id}, but no addresses came back")
        return DeploymentResult(
            revision=result.application_id,
            app_name=app.app_name,
            urls=endpoint_urls(result.service_urls, endpoint_paths(metadata)),
            endpoints=endpoints_of(metadata, result.service_urls),
            queue_url=result.service_urls.queue,
            log_url=result.service_urls.log,
            auth_mode=app.auth or "private",
            code="" if app.function is None else "modules" if app.travels_as_modules else "pickle",
            serving=app.serving,
            sources=app.function.files if app.function is not None and app.travels_as_modules else (),
        )
    raise DeployError(
        f"the controller did not confirm the deploy of {app.app_name}: look at `fal apps list`, then try again"
    )


async def _returned(stream: AsyncIterator[RunResult], handler: Callable[[RunResult], object] | None) -> ReturnValue:
    returned: ReturnValue | None = None
    async for result in stream:  # read to its end, so that the run also ends for the controller
        if handler is not None:
            handler(result)
        if result.state is RunState.INTERNAL_FAILURE:
            raise DeployError(f"the platform could not carry out the run {result.run_id}: its log says why")
        if result.state is RunState.SUCCESS:
            if result.return_value is None:
                raise DeployError(f"the run {result.run_id} ended without a result")
            returned = result.return_value
    if returned is not None:
        return returned
    raise DeployError("the run ended without reporting its result: try again")


__all__ = [
    "AsyncClient",
    "DeployOptions",
    "DeploymentResult",
    "build",
    "deploy",
    "deploy_built",
    "fetch_metadata",
    "run",
]
