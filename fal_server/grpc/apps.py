"""Handlers for apps, which the wire calls aliases. They convert the apps' settings, too."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from google.protobuf.message import Message

from fal_grpc.v1 import app_pb2 as pb
from fal_grpc.v1 import revision_pb2
from fal_server.core.apps import AuthMode, Strategy
from fal_server.core.names import MAIN
from fal_server.core.scaling import Scaling
from fal_server.grpc import explain
from fal_server.grpc.caller import Caller
from fal_server.grpc.convert import named
from fal_server.grpc.lists import serialized
from fal_server.grpc.streams import closing, pages
from fal_server.services.apps import Apps
from fal_server.services.explain import Explainer
from fal_server.services.views import AppView

AUTH_MODES: dict[int, AuthMode] = {pb.PRIVATE: AuthMode.PRIVATE, pb.PUBLIC: AuthMode.PUBLIC, pb.SHARED: AuthMode.SHARED}
STRATEGIES: dict[int, Strategy] = {pb.RECREATE: Strategy.RECREATE, pb.ROLLING: Strategy.ROLLING}
_AUTH_NUMBERS = {AuthMode.PRIVATE: pb.PRIVATE, AuthMode.PUBLIC: pb.PUBLIC, AuthMode.SHARED: pb.SHARED}

# Numbers in AliasInfo, ApplicationInfo, UpdateApplicationRequest and MachineRequirements -> fields of Scaling.
_SETTINGS = {
    "keep_alive": "keep_alive",
    "max_multiplexing": "max_multiplexing",
    "max_concurrency": "max_concurrency",
    "min_concurrency": "min_concurrency",
    "request_timeout": "request_timeout",
    "startup_timeout": "startup_timeout",
    "concurrency_buffer": "concurrency_buffer",
    "concurrency_buffer_perc": "concurrency_buffer_perc",
    "scaling_delay_seconds": "scaling_delay",
    "request_start_timeout": "request_start_timeout",
}


class AppHandlers:
    """fal.v1.Apps."""

    def __init__(self, apps: Apps, explainer: Explainer) -> None:
        self._apps = apps
        self._explainer = explainer

    async def list_aliases(self, request: pb.ListAliasesRequest, caller: Caller) -> bytes:
        views = await self._apps.list(caller.scope, request.environment_name or MAIN)
        return await serialized(views, alias_info, lambda infos: pb.ListAliasesResult(aliases=infos))

    async def watch_apps(self, request: pb.WatchAppsRequest, caller: Caller) -> AsyncGenerator[pb.WatchAppsResponse]:
        found = self._apps.watch(caller.scope, request.environment_name or MAIN, request.version)
        async with closing(found) as stream:
            async for changes in stream:
                for page in pages(changes):
                    yield pb.WatchAppsResponse(
                        snapshot=page.snapshot,
                        apps=[alias_info(view) for view in page.rows],
                        removed=[view.app.name for view in page.removed],
                        version=page.version,
                    )

    async def set_alias(self, request: pb.SetAliasRequest, caller: Caller) -> pb.SetAliasResult:
        view = await self._apps.set_revision(
            caller.scope,
            request.alias,
            request.environment_name or MAIN,
            request.revision,
            auth_mode=named(request.auth_mode, AUTH_MODES, "auth_mode") if request.HasField("auth_mode") else None,
            strategy=named(request.deployment_strategy, STRATEGIES, "deployment_strategy")
            if request.HasField("deployment_strategy")
            else None,
        )
        return pb.SetAliasResult(alias_info=alias_info(view))

    async def delete_alias(self, request: pb.DeleteAliasRequest, caller: Caller) -> pb.DeleteAliasResult:
        app = await self._apps.delete(caller.scope, request.alias, request.environment_name or MAIN)
        return pb.DeleteAliasResult(revision=app.revision_id)

    async def update_application(
        self, request: pb.UpdateApplicationRequest, caller: Caller
    ) -> pb.UpdateApplicationResult:
        changes = numbers_set(request)
        if request.machine_types:
            changes["machine_types"] = tuple(request.machine_types)
        if request.valid_regions:
            # An empty list is one that was not sent, so an empty name means any region.
            changes["regions"] = () if list(request.valid_regions) == [""] else tuple(request.valid_regions)
        view = await self._apps.update(
            caller.scope, request.application_name, request.environment_name or MAIN, changes
        )
        return pb.UpdateApplicationResult(alias_info=alias_info(view))

    async def rollout_application(
        self, request: pb.RolloutApplicationRequest, caller: Caller
    ) -> pb.RolloutApplicationResult:
        await self._apps.rollout(
            caller.scope, request.application_name, request.environment_name or MAIN, force=request.force
        )
        return pb.RolloutApplicationResult()

    async def explain_app(self, request: pb.ExplainAppRequest, caller: Caller) -> pb.ExplainAppResponse:
        found = await self._explainer.explain(caller.scope, request.application_name, request.environment_name or MAIN)
        return explain.explanation(found, alias_info(found.app))

    async def simulate_app(self, request: pb.SimulateAppRequest, caller: Caller) -> pb.SimulateAppResponse:
        scaling, result = await self._explainer.simulate(
            caller.scope,
            request.application_name,
            request.environment_name or MAIN,
            explain.settings(request, _SETTINGS),
            explain.arrivals(request),
            request.start_seconds,
        )
        settings = pb.AliasInfo()
        put_settings(settings, scaling)
        return explain.simulation(result, settings)


def numbers_set(message: Message) -> dict[str, int | tuple[str, ...]]:
    """Return the numeric settings that a message sets. The names are those of the fields of core.scaling.Scaling."""
    return {setting: getattr(message, field) for field, setting in _SETTINGS.items() if message.HasField(field)}


def alias_info(view: AppView) -> pb.AliasInfo:
    """Return an app for the wire."""
    app = view.app
    info = pb.AliasInfo(
        alias=app.name,
        revision=app.revision_id,
        auth_mode=_AUTH_NUMBERS[app.auth_mode],
        active_runners=view.active_runners,
        environment_name=app.environment,
        is_rolling=view.is_rolling,
    )
    put_settings(info, app.scaling)
    if view.load is not None:
        info.load.CopyFrom(explain.app_load(view.load))
    if view.failures.count:
        info.failed_starts = view.failures.count
        info.last_failure = view.failures.reason
        info.failed_runner_id = view.failures.runner_id
    return info


def put_settings(message: pb.AliasInfo | revision_pb2.ApplicationInfo, scaling: Scaling) -> None:
    """Write the settings of an app or a revision into its message. Both messages use the same field names."""
    for field, setting in _SETTINGS.items():
        if (value := getattr(scaling, setting)) is not None:
            setattr(message, field, value)
    message.machine_types.extend(scaling.machine_types)
    message.valid_regions.extend(scaling.regions)
