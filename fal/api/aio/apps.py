"""`client.apps` for asyncio."""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from fal.api.apps import AppsNamespace, containing
from fal.api.logs import question
from fal_grpc.adapter.app import AliasInfo, AuthMode, DeploymentStrategy
from fal_grpc.adapter.log import LogEntry, LogOrigin
from fal_grpc.adapter.runner import RunnerInfo, RunnerState, parse_states
from fal_grpc.adapter.scaling import AppExplanation, AppSimulation
from fal_grpc.documented import documented_by
from fal_grpc.errors import NotFoundError

if TYPE_CHECKING:
    from fal.api.aio.client import AsyncServerlessClient
    from fal.gpus import GpuUsage
    from fal_grpc.adapter.revision import ApplicationInfo


@documented_by(AppsNamespace)
class AsyncAppsNamespace:
    """`AppsNamespace` for asyncio."""

    def __init__(self, client: AsyncServerlessClient) -> None:
        self.client = client

    async def list(self, *, filter: str | None = None, environment_name: str | None = None) -> list[AliasInfo]:  # noqa: A002
        controller = await self.client.controller()
        return containing(filter, await controller.list_aliases(environment_name=environment_name))

    async def runners(
        self,
        app_name: str,
        *,
        since: datetime | None = None,
        state: Sequence[RunnerState | str] | None = None,
        environment_name: str | None = None,
    ) -> builtins.list[RunnerInfo]:
        wanted = parse_states(state)
        controller = await self.client.controller()
        found = await controller.list_alias_runners(app_name, since=since, environment_name=environment_name)
        return found if wanted is None else [runner for runner in found if runner.state in wanted]

    async def scale(
        self,
        app_name: str,
        *,
        keep_alive: int | None = None,
        max_multiplexing: int | None = None,
        max_concurrency: int | None = None,
        min_concurrency: int | None = None,
        concurrency_buffer: int | None = None,
        concurrency_buffer_perc: int | None = None,
        scaling_delay: int | None = None,
        request_timeout: int | None = None,
        request_start_timeout: int | None = None,
        startup_timeout: int | None = None,
        machine_types: builtins.list[str] | None = None,
        regions: builtins.list[str] | None = None,
        environment_name: str | None = None,
    ) -> AliasInfo:
        controller = await self.client.controller()
        return await controller.update_application(
            app_name,
            keep_alive=keep_alive,
            max_multiplexing=max_multiplexing,
            max_concurrency=max_concurrency,
            min_concurrency=min_concurrency,
            concurrency_buffer=concurrency_buffer,
            concurrency_buffer_perc=concurrency_buffer_perc,
            scaling_delay=scaling_delay,
            request_timeout=request_timeout,
            request_start_timeout=request_start_timeout,
            startup_timeout=startup_timeout,
            machine_types=machine_types,
            regions=regions,
            environment_name=environment_name,
        )

    async def rollout(self, app_name: str, *, force: bool = False, environment_name: str | None = None) -> None:
        controller = await self.client.controller()
        await controller.rollout_application(app_name, force=force, environment_name=environment_name)

    def logs(
        self,
        app_name: str,
        *,
        follow: bool = False,
        since: datetime | None = None,
        until: datetime | None = None,
        search: str | None = None,
        lines: int | None = None,
        oldest: bool = False,
        sources: Sequence[LogOrigin | str] = (),
        request_id: str | None = None,
        environment_name: str | None = None,
    ) -> AsyncGenerator[LogEntry, None]:
        asked = question(
            app=app_name,
            environment_name=environment_name,
            follow=follow,
            since=since,
            until=until,
            search=search,
            lines=lines,
            oldest=oldest,
            sources=sources,
            request_id=request_id,
        )
        from fal.api.aio import log_reading

        return log_reading.read(self.client, asked, follow=follow)

    async def gpus(self, app_name: str) -> GpuUsage:
        import asyncio

        from fal.gpus import usage

        return await asyncio.to_thread(lambda: usage(self.client.rest(), app_name))

    async def explain(self, app_name: str, *, environment_name: str | None = None) -> AppExplanation:
        controller = await self.client.controller()
        return await controller.explain_application(app_name, environment_name=environment_name)

    async def simulate(
        self,
        arrivals: Sequence[tuple[float, float]],
        app_name: str | None = None,
        *,
        settings: Mapping[str, int] | None = None,
        start_seconds: float = 5.0,
        environment_name: str | None = None,
    ) -> AppSimulation:
        controller = await self.client.controller()
        return await controller.simulate_application(
            arrivals,
            application_name=app_name,
            environment_name=environment_name,
            settings=settings,
            start_seconds=start_seconds,
        )

    async def list_rev(
        self, app_name: str | None = None, *, environment_name: str | None = None
    ) -> builtins.list[ApplicationInfo]:
        controller = await self.client.controller()
        return await controller.list_applications(app_name, environment_name=environment_name)

    async def set_rev(
        self,
        app_name: str,
        app_rev: str,
        *,
        auth: AuthMode | str | None = None,
        strategy: DeploymentStrategy | str | None = None,
        environment_name: str | None = None,
    ) -> AliasInfo:
        controller = await self.client.controller()
        return await controller.set_alias(
            app_name, app_rev, auth_mode=auth, environment_name=environment_name, deployment_strategy=strategy
        )

    async def delete(self, app_name: str, *, environment_name: str | None = None) -> str | None:
        controller = await self.client.controller()
        try:
            return await controller.delete_alias(app_name, environment_name=environment_name)
        except NotFoundError:
            return None

    async def delete_rev(self, app_rev: str) -> None:
        controller = await self.client.controller()
        await controller.delete_application(app_rev)
