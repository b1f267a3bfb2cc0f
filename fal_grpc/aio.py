"""The asyncio face: the calls of `controller`, to await. A test holds names, signatures and docstrings equal."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Self

from fal_grpc.adapter import app, environment, execs, key, log, revision, run, runner, secret
from fal_grpc.aio_calls import AsyncCalls
from fal_grpc.aio_exec_session import AsyncExecSession, start
from fal_grpc.aio_session import AsyncShellSession
from fal_grpc.channel import ChannelOptions
from fal_grpc.controller import Controller
from fal_grpc.credentials import Credentials
from fal_grpc.documented import documented_by
from fal_grpc.scaling_calls import AsyncScalingCalls
from fal_grpc.target import Target


@documented_by(Controller)
class AsyncController(AsyncScalingCalls):
    """`Controller` for asyncio, within one event loop."""

    def __init__(self, target: Target, credentials: Credentials, options: ChannelOptions | None = None) -> None:
        self._calls = AsyncCalls(target, credentials, options or ChannelOptions())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._calls.close()

    # Apps

    async def list_aliases(self, *, environment_name: str | None = None) -> list[app.AliasInfo]:
        return app.alias_infos(
            await self._calls.unary(self._calls.apps.ListAliases, app.list_request(environment_name))
        )

    async def set_alias(
        self,
        alias: str,
        revision: str,
        *,
        auth_mode: app.AuthMode | str | None = None,
        environment_name: str | None = None,
        deployment_strategy: app.DeploymentStrategy | str | None = None,
    ) -> app.AliasInfo:
        request = app.set_request(
            alias,
            revision,
            auth_mode=auth_mode,
            environment_name=environment_name,
            deployment_strategy=deployment_strategy,
        )
        answer = await self._calls.unary(self._calls.apps.SetAlias, request)
        return app.updated(answer)

    async def delete_alias(self, alias: str, *, environment_name: str | None = None) -> str:
        request = app.delete_request(alias, environment_name=environment_name)
        return app.deleted_revision(await self._calls.unary(self._calls.apps.DeleteAlias, request))

    async def update_application(
        self,
        application_name: str,
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
        machine_types: Sequence[str] | None = None,
        regions: Sequence[str] | None = None,
        environment_name: str | None = None,
    ) -> app.AliasInfo:
        request = app.update_request(
            application_name,
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
        answer = await self._calls.unary(self._calls.apps.UpdateApplication, request)
        return app.updated(answer)

    async def rollout_application(
        self, application_name: str, *, force: bool = False, environment_name: str | None = None
    ) -> None:
        request = app.rollout_request(application_name, force=force, environment_name=environment_name)
        await self._calls.unary(self._calls.apps.RolloutApplication, request)

    # Revisions

    def build_environment(self, request: revision.BuildRequest) -> AsyncGenerator[revision.BuildResult, None]:
        message = revision.build_request(request)
        return self._calls.stream(self._calls.revisions.BuildEnvironment, message, revision.build_result)

    def register_application(self, request: revision.RegisterRequest) -> AsyncGenerator[revision.RegisterResult, None]:
        message = revision.register_request(request)
        return self._calls.stream(self._calls.revisions.RegisterApplication, message, revision.register_result)

    async def list_applications(
        self, application_name: str | None = None, *, environment_name: str | None = None
    ) -> list[revision.ApplicationInfo]:
        request = revision.list_request(application_name=application_name, environment_name=environment_name)
        return revision.application_infos(await self._calls.unary(self._calls.revisions.ListApplications, request))

    async def delete_application(self, application_id: str) -> None:
        await self._calls.unary(self._calls.revisions.DeleteApplication, revision.delete_request(application_id))

    # Runs

    def run(self, request: run.RunRequest) -> AsyncGenerator[run.RunResult, None]:
        return self._calls.stream(self._calls.runs.Run, run.run_request(request), run.run_result)

    # Runners

    async def list_runners(
        self, *, since: datetime | None = None, list_pending: bool = True
    ) -> list[runner.RunnerInfo]:
        request = runner.list_request(since=since, list_pending=list_pending)
        answer = await self._calls.unary(self._calls.runners.ListRunners, request)
        return runner.runner_infos(answer)

    async def list_alias_runners(
        self,
        alias: str,
        *,
        since: datetime | None = None,
        list_pending: bool = True,
        environment_name: str | None = None,
    ) -> list[runner.RunnerInfo]:
        request = runner.list_alias_request(
            alias, since=since, list_pending=list_pending, environment_name=environment_name
        )
        answer = await self._calls.unary(self._calls.runners.ListAliasRunners, request)
        return runner.runner_infos(answer)

    async def get_runner(self, runner_id: str) -> runner.RunnerInfo:
        return runner.got(await self._calls.unary(self._calls.runners.GetRunner, runner.get_request(runner_id)))

    async def stop_runner(
        self, runner_id: str, *, replace_first: bool = False, grace_seconds: int | None = None
    ) -> None:
        request = runner.stop_request(runner_id, replace_first=replace_first, grace_seconds=grace_seconds)
        await self._calls.unary(self._calls.runners.StopRunner, request)

    async def kill_runner(self, runner_id: str) -> None:
        await self._calls.unary(self._calls.runners.KillRunner, runner.kill_request(runner_id))

    def shell_runner(
        self,
        runner_id: str,
        command: Sequence[str] = (),
        *,
        tty: bool = True,
        stdin: bytes | str | Iterable[bytes] | AsyncIterable[bytes] | None = None,
        interactive: bool = False,
        timeout_seconds: float | None = None,
    ) -> AsyncShellSession:
        method = self._calls.runners.ShellRunner
        return AsyncShellSession(
            self._calls,
            method,
            runner_id,
            command,
            tty=tty,
            stdin=stdin,
            interactive=interactive,
            timeout_seconds=timeout_seconds,
        )

    # Execs

    async def start_exec(
        self,
        spec: execs.ExecSpec,
        *,
        stdin: bytes | str | Iterable[bytes] | AsyncIterable[bytes] | None = None,
        interactive: bool = False,
        on_notice: Callable[[str], None] = execs.no_notice,
    ) -> AsyncExecSession | AsyncShellSession:
        return await start(self._calls, spec, stdin=stdin, interactive=interactive, on_notice=on_notice)

    async def start_detached(self, spec: execs.ExecSpec) -> execs.ExecInfo:
        request = execs.start_request(spec, execs.new_id())
        return execs.exec_info((await self._calls.unary(self._calls.execs.StartExec, request)).exec)

    async def attach_exec(
        self, info: execs.ExecInfo, *, on_notice: Callable[[str], None] = execs.no_notice
    ) -> AsyncExecSession:
        return AsyncExecSession(self._calls, info, attached=True, on_notice=on_notice)

    async def get_exec(self, exec_id: str, *, runner_id: str | None = None) -> execs.ExecInfo:
        request = execs.get_request(exec_id, runner_id)
        return execs.exec_info((await self._calls.unary(self._calls.execs.GetExec, request)).exec)

    async def list_execs(self, *, runner_id: str | None = None) -> list[execs.ExecInfo]:
        answer = await self._calls.unary(self._calls.execs.ListExecs, execs.list_request(runner_id))
        return [execs.exec_info(found) for found in answer.execs]

    # Keys

    async def create_user_key(
        self,
        *,
        preset: key.KeyPreset | str | None = None,
        permissions: Sequence[str] | None = None,
        scope: key.KeyScope | str | None = None,
        description: str | None = None,
    ) -> key.NewKey:
        request = key.create_request(preset=preset, permissions=permissions, scope=scope, description=description)
        return key.new_key(await self._calls.unary(self._calls.keys.CreateUserKey, request))

    async def list_user_keys(self) -> list[key.UserKeyInfo]:
        return key.key_infos(await self._calls.unary(self._calls.keys.ListUserKeys, key.list_request()))

    async def revoke_user_key(self, key_id: str) -> None:
        await self._calls.unary(self._calls.keys.RevokeUserKey, key.revoke_request(key_id))

    # Secrets

    async def set_secret(
        self, name: str, value: str, *, environment_name: str | None = None, default_exposed: bool | None = None
    ) -> None:
        request = secret.set_request(name, value, environment_name=environment_name, default_exposed=default_exposed)
        await self._calls.unary(self._calls.secrets.SetSecret, request)

    async def unset_secret(self, name: str, *, environment_name: str | None = None) -> None:
        await self._calls.unary(
            self._calls.secrets.SetSecret, secret.unset_request(name, environment_name=environment_name)
        )

    async def list_secrets(self, *, environment_name: str | None = None) -> list[secret.ServerlessSecret]:
        return secret.secrets(
            await self._calls.unary(self._calls.secrets.ListSecrets, secret.list_request(environment_name))
        )

    # Environments

    async def create_environment(self, name: str, *, description: str | None = None) -> environment.EnvironmentInfo:
        request = environment.create_request(name, description=description)
        return environment.created(await self._calls.unary(self._calls.environments.CreateEnvironment, request))

    async def list_environments(self) -> list[environment.EnvironmentInfo]:
        request = environment.list_request()
        return environment.environment_infos(
            await self._calls.unary(self._calls.environments.ListEnvironments, request)
        )

    async def delete_environment(self, name: str) -> None:
        await self._calls.unary(self._calls.environments.DeleteEnvironment, environment.delete_request(name))

    # Logs

    async def list_logs(
        self,
        *,
        runner_id: str | None = None,
        app: str | None = None,
        environment_name: str | None = None,
        sources: Sequence[log.LogOrigin] = (),
        search: str | None = None,
        request_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        lines: int | None = None,
        oldest_first: bool = False,
        page_size: int = 0,
        page_token: str | None = None,
    ) -> log.LogPage:
        request = log.list_request(
            runner_id=runner_id,
            app=app,
            environment_name=environment_name,
            sources=sources,
            search=search,
            request_id=request_id,
            since=since,
            until=until,
            lines=lines,
            oldest_first=oldest_first,
            page_size=page_size,
            page_token=page_token,
        )
        return log.page(await self._calls.unary(self._calls.logs.ListLogs, request))

    def follow_logs(
        self,
        *,
        runner_id: str | None = None,
        app: str | None = None,
        environment_name: str | None = None,
        sources: Sequence[log.LogOrigin] = (),
        search: str | None = None,
        request_id: str | None = None,
        cursor: str | None = None,
        since: datetime | None = None,
    ) -> AsyncGenerator[log.LogBatch, None]:
        request = log.follow_request(
            runner_id=runner_id,
            app=app,
            environment_name=environment_name,
            sources=sources,
            search=search,
            request_id=request_id,
            cursor=cursor,
            since=since,
        )
        return self._calls.stream(self._calls.logs.FollowLogs, request, log.batch)
