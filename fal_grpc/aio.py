"""A controller's calls as methods for asyncio. They take and return plain Python."""

# The source of fal_grpc/controller.py: run `make gen` after a change.

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Self

from fal_grpc import adapter
from fal_grpc.adapter.values import no_notice
from fal_grpc.aio_calls import AsyncCalls
from fal_grpc.channel import ChannelOptions
from fal_grpc.credentials import Credentials
from fal_grpc.target import Target

if TYPE_CHECKING:
    from fal_grpc.aio_exec_session import AsyncExecSession
    from fal_grpc.aio_shell_session import AsyncShellSession


class AsyncController:
    """The client of one controller. Its one channel opens at the first call.

    It belongs to the event loop of its first call. Each method raises a `CallError` if the controller answers with an
    error, an `ArgumentError` if an argument is refused before anything is sent, and a `ClientClosedError` after
    `close`.
    """

    def __init__(self, target: Target, credentials: Credentials, options: ChannelOptions | None = None) -> None:
        self._calls = AsyncCalls(target, credentials, options or ChannelOptions())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel and cancel the calls in flight. A second close does nothing."""
        await self._calls.close()

    # Apps

    async def list_aliases(self, *, environment_name: str | None = None) -> list[adapter.app.AliasInfo]:
        """List the apps of an environment."""
        return adapter.app.alias_infos(
            await self._calls.unary(self._calls.apps.ListAliases, adapter.app.list_request(environment_name))
        )

    async def set_alias(
        self,
        alias: str,
        revision: str,
        *,
        auth_mode: adapter.app.AuthMode | str | None = None,
        environment_name: str | None = None,
        deployment_strategy: adapter.app.DeploymentStrategy | str | None = None,
    ) -> adapter.app.AliasInfo:
        """Point an app at a revision. Create the app if it does not exist."""
        request = adapter.app.set_request(
            alias,
            revision,
            auth_mode=auth_mode,
            environment_name=environment_name,
            deployment_strategy=deployment_strategy,
        )
        answer = await self._calls.unary(self._calls.apps.SetAlias, request)
        return adapter.app.updated(answer)

    async def delete_alias(self, alias: str, *, environment_name: str | None = None) -> str:
        """Delete an app and return its revision, which is kept."""
        request = adapter.app.delete_request(alias, environment_name=environment_name)
        return adapter.app.deleted_revision(await self._calls.unary(self._calls.apps.DeleteAlias, request))

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
    ) -> adapter.app.AliasInfo:
        """Change settings of an app. None or an empty list leaves a setting unchanged; durations are in seconds."""
        request = adapter.app.update_request(
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
        return adapter.app.updated(answer)

    async def rollout_application(
        self, application_name: str, *, force: bool = False, environment_name: str | None = None
    ) -> None:
        """Replace an app's runners with new ones of the same revision. `force` replaces all at once."""
        request = adapter.app.rollout_request(application_name, force=force, environment_name=environment_name)
        await self._calls.unary(self._calls.apps.RolloutApplication, request)

    def watch_apps(
        self, *, environment_name: str | None = None, version: str = ""
    ) -> AsyncGenerator[adapter.changes.Changes[adapter.app.AliasInfo], None]:
        """Stream apps and their changes, as `watch_runners` does. Only this project's controllers serve this call."""
        request = adapter.changes.watch_apps_request(environment_name=environment_name, version=version)
        return self._calls.stream(self._calls.apps.WatchApps, request, adapter.changes.app_changes)

    # Scaling

    async def explain_application(
        self, application_name: str, *, environment_name: str | None = None
    ) -> adapter.scaling.AppExplanation:
        """Explain why an app has the runners that it has. Only this project's controllers serve this call."""
        request = adapter.scaling.explain_request(application_name, environment_name=environment_name)
        return adapter.scaling.explanation(await self._calls.unary(self._calls.apps.ExplainApp, request))

    async def simulate_application(
        self,
        arrivals: Sequence[tuple[float, float]],
        *,
        application_name: str | None = None,
        environment_name: str | None = None,
        settings: Mapping[str, int] | None = None,
        start_seconds: float = 5.0,
    ) -> adapter.scaling.AppSimulation:
        """Simulate how an app scales for a load. Only this project's controllers serve this call.

        Args:
            arrivals: the requests, each (seconds from the start, duration in seconds).
            application_name: the app whose settings apply; None means those of a new app.
            environment_name: the app's environment; None means the default one.
            settings: settings to try instead, by their names in `update_application`.
            start_seconds: how long a runner takes to become ready.
        """
        request = adapter.scaling.simulate_request(
            arrivals,
            name=application_name,
            environment_name=environment_name,
            settings=settings,
            start_seconds=start_seconds,
        )
        return adapter.scaling.simulation(await self._calls.unary(self._calls.apps.SimulateApp, request))

    # Revisions

    def build_environment(
        self, request: adapter.revision.BuildRequest
    ) -> AsyncGenerator[adapter.revision.BuildResult, None]:
        """Build an environment and stream its logs. The last result has a state; closing it cancels the call."""
        message = adapter.revision.build_request(request)
        return self._calls.stream(self._calls.revisions.BuildEnvironment, message, adapter.revision.build_result)

    def register_application(
        self, request: adapter.revision.RegisterRequest
    ) -> AsyncGenerator[adapter.revision.RegisterResult, None]:
        """Deploy and stream logs; the last result has an application_id. Closing it cancels the call."""
        message = adapter.revision.register_request(request)
        return self._calls.stream(self._calls.revisions.RegisterApplication, message, adapter.revision.register_result)

    async def plan_application(self, request: adapter.revision.RegisterRequest) -> adapter.revision.DeployPlan:
        """Return the effects of a deploy without changing anything. Other controllers raise UnimplementedError."""
        message = adapter.revision.plan_request(request)
        return adapter.revision.deploy_plan(await self._calls.unary(self._calls.revisions.PlanApplication, message))

    async def list_applications(
        self, application_name: str | None = None, *, environment_name: str | None = None
    ) -> list[adapter.revision.ApplicationInfo]:
        """List the revisions of one app, or of all, newest first."""
        request = adapter.revision.list_request(application_name=application_name, environment_name=environment_name)
        return adapter.revision.application_infos(
            await self._calls.unary(self._calls.revisions.ListApplications, request)
        )

    async def delete_application(self, application_id: str) -> None:
        """Delete a revision that no app points at."""
        await self._calls.unary(
            self._calls.revisions.DeleteApplication, adapter.revision.delete_request(application_id)
        )

    # Runs

    def run(self, request: adapter.run.RunRequest) -> AsyncGenerator[adapter.run.RunResult, None]:
        """Run a callable and stream its logs. The last result has its state; closing the stream ends the runner."""
        return self._calls.stream(self._calls.runs.Run, adapter.run.run_request(request), adapter.run.run_result)

    # Runners

    async def list_runners(
        self, *, since: datetime | None = None, list_pending: bool = True
    ) -> list[adapter.runner.RunnerInfo]:
        """List the runners of all apps.

        Args:
            since: also list those that ended at or after this time; a naive one is local time.
            list_pending: also list those that are not running yet.
        """
        pages, token = adapter.runner.RunnerPages(), None
        while True:
            request = adapter.runner.list_request(since=since, list_pending=list_pending, page_token=token)
            answer = await self._calls.unary(self._calls.runners.ListRunners, request)
            token = pages.take(answer)
            if token is None:
                return pages.runners()

    async def list_nodes(self) -> adapter.node.NodeList:
        """List the machines that runners run on, and the machine types.

        Only this project's controllers serve this call.
        """
        return adapter.node.node_list(
            await self._calls.unary(self._calls.runners.ListNodes, adapter.node.list_request())
        )

    async def list_alias_runners(
        self,
        alias: str,
        *,
        since: datetime | None = None,
        list_pending: bool = True,
        environment_name: str | None = None,
    ) -> list[adapter.runner.RunnerInfo]:
        """List the runners of one app; the arguments are those of `list_runners`."""
        pages, token = adapter.runner.RunnerPages(), None
        while True:
            request = adapter.runner.list_alias_request(
                alias, since=since, list_pending=list_pending, environment_name=environment_name, page_token=token
            )
            answer = await self._calls.unary(self._calls.runners.ListAliasRunners, request)
            token = pages.take(answer)
            if token is None:
                return pages.runners()

    def watch_runners(
        self,
        *,
        alias: str | None = None,
        environment_name: str | None = None,
        since: datetime | None = None,
        version: str = "",
    ) -> AsyncGenerator[adapter.changes.Changes[adapter.runner.RunnerInfo], None]:
        """Stream runners and their changes. Only this project's controllers serve this call.

        Args:
            alias: only the runners of this app; None means all.
            environment_name: the app's environment; None means the default one.
            since: include those that ended at or after this time in a snapshot.
            version: the last message's version, to resume from; "" starts with a snapshot.
        """
        request = adapter.changes.watch_runners_request(
            alias=alias, environment_name=environment_name, since=since, version=version
        )
        return self._calls.stream(self._calls.runners.WatchRunners, request, adapter.changes.runner_changes)

    async def get_runner(self, runner_id: str) -> adapter.runner.RunnerInfo:
        """Return one runner, live or ended. Only this project's controllers serve this call."""
        return adapter.runner.got(
            await self._calls.unary(self._calls.runners.GetRunner, adapter.runner.get_request(runner_id))
        )

    async def stop_runner(
        self, runner_id: str, *, replace_first: bool = False, grace_seconds: int | None = None
    ) -> None:
        """Stop a runner once it has finished its requests. With `replace_first`, stop it once another is ready.

        Args:
            grace_seconds: between SIGTERM and SIGKILL of its process; None means the app's setting.
        """
        request = adapter.runner.stop_request(runner_id, replace_first=replace_first, grace_seconds=grace_seconds)
        await self._calls.unary(self._calls.runners.StopRunner, request)

    async def kill_runner(self, runner_id: str) -> None:
        """Kill a runner at once; requests in flight fail."""
        await self._calls.unary(self._calls.runners.KillRunner, adapter.runner.kill_request(runner_id))

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
        """Run a command, or a login shell, inside a runner.

        Args:
            runner_id: the runner.
            command: the command and its arguments, which no shell interprets; empty means a login shell.
            tty: whether to give it a terminal.
            stdin: its complete input; not together with `interactive`.
            interactive: whether input comes from the session's `send`, until `close_input`.
            timeout_seconds: how long the command may run; None sets no limit.
        """
        from fal_grpc.aio_shell_session import AsyncShellSession

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
        spec: adapter.execs.ExecSpec,
        *,
        stdin: bytes | str | Iterable[bytes] | AsyncIterable[bytes] | None = None,
        interactive: bool = False,
        on_notice: Callable[[str], None] = no_notice,
    ) -> AsyncExecSession | AsyncShellSession:
        """Start a command in a runner and read it. If a controller lacks execs, the command ends with its link.

        Args:
            spec: what to run.
            stdin: its complete input; not together with `interactive`.
            interactive: whether input comes from the session's `send`, until `close_input`.
            on_notice: called with a message if the link breaks, if it is back, and if output was dropped.
        """
        from fal_grpc.aio_exec_session import start

        return await start(self._calls, spec, stdin=stdin, interactive=interactive, on_notice=on_notice)

    async def start_detached(self, spec: adapter.execs.ExecSpec) -> adapter.execs.ExecInfo:
        """Start a command that nobody reads yet."""
        request = adapter.execs.start_request(spec, adapter.execs.new_id())
        return adapter.execs.exec_info((await self._calls.unary(self._calls.execs.StartExec, request)).exec)

    async def attach_exec(
        self, info: adapter.execs.ExecInfo, *, on_notice: Callable[[str], None] = no_notice
    ) -> AsyncExecSession:
        """Read a command from the earliest output that is kept. An earlier reader is notified and replaced."""
        from fal_grpc.aio_exec_session import AsyncExecSession

        return AsyncExecSession(self._calls, info, attached=True, on_notice=on_notice)

    async def get_exec(self, exec_id: str, *, runner_id: str | None = None) -> adapter.execs.ExecInfo:
        """Return one command, running or recently ended. Without a runner id, all runners are searched."""
        request = adapter.execs.get_request(exec_id, runner_id)
        return adapter.execs.exec_info((await self._calls.unary(self._calls.execs.GetExec, request)).exec)

    async def list_execs(self, *, runner_id: str | None = None) -> list[adapter.execs.ExecInfo]:
        """List running and recently ended commands, of one runner or of all."""
        answer = await self._calls.unary(self._calls.execs.ListExecs, adapter.execs.list_request(runner_id))
        return [adapter.execs.exec_info(found) for found in answer.execs]

    # Keys

    async def create_user_key(
        self,
        *,
        preset: adapter.key.KeyPreset | str | None = None,
        permissions: Sequence[str] | None = None,
        scope: adapter.key.KeyScope | str | None = None,
        description: str | None = None,
        expires_at: datetime | None = None,
        for_app: str | None = None,
        environment_name: str | None = None,
    ) -> adapter.key.NewKey:
        """Create a key from exactly one of preset, permissions and scope. Its secret cannot be read again."""
        request = adapter.key.create_request(
            preset=preset,
            permissions=permissions,
            scope=scope,
            description=description,
            expires_at=expires_at,
            for_app=for_app,
            environment_name=environment_name,
        )
        message = await self._calls.unary(self._calls.keys.CreateUserKey, request)
        return adapter.key.new_key(message)

    async def get_caller(self) -> adapter.key.Caller:
        """Return the caller's identity. Only this project's controllers serve this call."""
        return adapter.key.caller(await self._calls.unary(self._calls.keys.GetCaller, adapter.key.caller_request()))

    async def rotate_user_key(self, key_id: str, overlap: timedelta) -> adapter.key.NewKey:
        """Create a key like another one, which expires after the overlap."""
        request = adapter.key.rotate_request(key_id, overlap)
        message = await self._calls.unary(self._calls.keys.RotateUserKey, request)
        return adapter.key.new_key(message)

    async def list_user_keys(self) -> list[adapter.key.UserKeyInfo]:
        """List the keys that are not revoked, without their secrets."""
        return adapter.key.key_infos(await self._calls.unary(self._calls.keys.ListUserKeys, adapter.key.list_request()))

    async def revoke_user_key(self, key_id: str) -> None:
        """Revoke a key."""
        await self._calls.unary(self._calls.keys.RevokeUserKey, adapter.key.revoke_request(key_id))

    async def create_login_token(self, life: timedelta) -> adapter.key.LoginToken:
        """Create a token that stands for the caller's key. Only this project's controllers serve this call."""
        request = adapter.key.login_request(life)
        return adapter.key.login_token(await self._calls.unary(self._calls.keys.CreateLoginToken, request))

    # Accounts, which only this project's controllers have

    async def list_accounts(self, *, everything: bool = False) -> list[adapter.account.AccountInfo]:
        """List the caller's account and its teams, or all accounts."""
        request = adapter.account.list_request(everything=everything)
        message = await self._calls.unary(self._calls.accounts.ListAccounts, request)
        return [adapter.account.account_info(each) for each in message.accounts]

    async def create_account(
        self, nickname: str, *, kind: adapter.account.AccountKind | str, full_name: str | None = None
    ) -> adapter.account.NewAccount:
        """Create an account and its first key."""
        request = adapter.account.create_request(nickname, kind=kind, full_name=full_name)
        return adapter.account.new_account(await self._calls.unary(self._calls.accounts.CreateAccount, request))

    async def list_members(self, team: str) -> list[adapter.account.TeamMember]:
        """List the members of a team."""
        message = await self._calls.unary(self._calls.accounts.ListMembers, adapter.account.members_request(team))
        return [adapter.account.member(each) for each in message.members]

    async def add_member(
        self, team: str, user: str, *, role: adapter.account.MemberRole | str
    ) -> adapter.account.TeamMember:
        """Add a user to a team, or give a member another role."""
        request = adapter.account.add_request(team, user, role=role)
        return adapter.account.member((await self._calls.unary(self._calls.accounts.AddMember, request)).member)

    async def remove_member(self, team: str, user: str) -> None:
        """Remove a user from a team."""
        await self._calls.unary(self._calls.accounts.RemoveMember, adapter.account.remove_request(team, user))

    async def rename_account(
        self, nickname: str, new_nickname: str, *, full_name: str | None = None
    ) -> adapter.account.AccountInfo:
        """Give an account another nickname."""
        request = adapter.account.rename_request(nickname, new_nickname, full_name=full_name)
        message = await self._calls.unary(self._calls.accounts.RenameAccount, request)
        return adapter.account.account_info(message.account)

    async def delete_account(self, nickname: str) -> bool:
        """Delete an account; return whether all its data is already removed."""
        request = adapter.account.delete_request(nickname)
        return (await self._calls.unary(self._calls.accounts.DeleteAccount, request)).removed

    async def get_quotas(self, nickname: str) -> adapter.account.AccountQuotas:
        """Return an account's quotas and usage."""
        request = adapter.account.get_quotas_request(nickname)
        return adapter.account.quotas_of(await self._calls.unary(self._calls.accounts.GetQuotas, request))

    async def set_quotas(self, nickname: str, wanted: Mapping[str, int | None]) -> Mapping[str, int]:
        """Change an account's quotas."""
        request = adapter.account.set_quotas_request(nickname, wanted)
        message = await self._calls.unary(self._calls.accounts.SetQuotas, request)
        return adapter.account.bounds_of(message.quotas)

    # The request history, which only this project's controllers have

    async def list_requests(
        self,
        *,
        app: str | None = None,
        environment_name: str | None = None,
        status: adapter.request.RequestStatus | str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        runner_id: str | None = None,
        key_id: str | None = None,
        endpoint: str | None = None,
        oldest_first: bool = False,
        page_size: int = 0,
        page_token: str = "",
    ) -> adapter.request.RequestPage:
        """List requests that have ended, those that ended last first."""
        request = adapter.request.list_request(
            app=app,
            environment_name=environment_name,
            status=status,
            since=since,
            until=until,
            runner_id=runner_id,
            key_id=key_id,
            endpoint=endpoint,
            oldest_first=oldest_first,
            page_size=page_size,
            page_token=page_token,
        )
        return adapter.request.page(await self._calls.unary(self._calls.requests.ListRequests, request))

    async def get_request(self, request_id: str) -> adapter.request.RequestRecord:
        """Return a request that has ended."""
        request = adapter.request.get_request(request_id)
        return adapter.request.record(await self._calls.unary(self._calls.requests.GetRequest, request))

    async def get_request_stats(
        self,
        *,
        app: str | None = None,
        environment_name: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        step_seconds: int = 0,
        by_endpoint: bool = False,
    ) -> list[adapter.request.RequestStats]:
        """Return statistics of the requests that ended in a span."""
        request = adapter.request.stats_request(
            app=app,
            environment_name=environment_name,
            since=since,
            until=until,
            step_seconds=step_seconds,
            by_endpoint=by_endpoint,
        )
        return adapter.request.stats(await self._calls.unary(self._calls.requests.GetRequestStats, request))

    # The audit log, which only this project's controllers have

    async def list_audit_entries(
        self, *, since: datetime | None = None, page_size: int = 0, page_token: str = ""
    ) -> tuple[Sequence[adapter.audit.AuditEntry], str]:
        """Return a page of entries, newest first, and the next page's token."""
        request = adapter.audit.list_request(since=since, page_size=page_size, page_token=page_token)
        return adapter.audit.page(await self._calls.unary(self._calls.audit.ListAuditEntries, request))

    async def verify_audit(self) -> adapter.audit.AuditCheck:
        """Check that the audit log is intact."""
        message = await self._calls.unary(self._calls.audit.VerifyAudit, adapter.audit.verify_request())
        return adapter.audit.check(message)

    # Log drains, which only our controller has

    async def create_drain(
        self,
        name: str,
        url: str,
        *,
        form: str = "ndjson",
        apps: Sequence[str] = (),
        least_level: str | None = None,
        headers: Mapping[str, str] | None = None,
        signing_key: str | None = None,
    ) -> adapter.drain.LogDrain:
        """Create a log drain."""
        request = adapter.drain.create_request(
            name,
            url,
            form=form,
            apps=apps,
            least_level=least_level,
            headers=headers,
            signing_key=signing_key,
        )
        message = await self._calls.unary(self._calls.drains.CreateDrain, request)
        return adapter.drain.drain(message.drain, message.warnings)

    async def list_drains(self) -> list[adapter.drain.LogDrain]:
        """List the log drains by name."""
        message = await self._calls.unary(self._calls.drains.ListDrains, adapter.drain.list_request())
        return [adapter.drain.drain(each) for each in message.drains]

    async def get_drain(self, name: str) -> adapter.drain.LogDrain:
        """Return a log drain."""
        request = adapter.drain.get_request(name)
        return adapter.drain.drain((await self._calls.unary(self._calls.drains.GetDrain, request)).drain)

    async def delete_drain(self, name: str) -> None:
        """Delete a log drain."""
        await self._calls.unary(self._calls.drains.DeleteDrain, adapter.drain.delete_request(name))

    async def pause_drain(self, name: str) -> None:
        """Pause a log drain."""
        await self._calls.unary(self._calls.drains.PauseDrain, adapter.drain.pause_request(name))

    async def resume_drain(self, name: str) -> None:
        """Let a log drain go on."""
        await self._calls.unary(self._calls.drains.ResumeDrain, adapter.drain.resume_request(name))

    # Notices, which only our controller has

    async def create_notice(
        self,
        name: str,
        url: str,
        *,
        form: str = "webhook",
        thresholds: Mapping[str, float] | None = None,
        apps: Sequence[str] = (),
        signing_key: str | None = None,
        to: Sequence[str] = (),
        sender: str | None = None,
        password: str | None = None,
    ) -> adapter.notice.Notice:
        """Create a notice."""
        request = adapter.notice.create_request(
            name,
            url,
            form=form,
            thresholds=thresholds,
            apps=apps,
            signing_key=signing_key,
            to=to,
            sender=sender,
            password=password,
        )
        return adapter.notice.notice((await self._calls.unary(self._calls.notices.CreateNotice, request)).notice)

    async def list_notices(self) -> list[adapter.notice.Notice]:
        """List the notices by name."""
        message = await self._calls.unary(self._calls.notices.ListNotices, adapter.notice.list_request())
        return [adapter.notice.notice(each) for each in message.notices]

    async def get_notice(self, name: str) -> adapter.notice.Notice:
        """Return a notice."""
        request = adapter.notice.get_request(name)
        return adapter.notice.notice((await self._calls.unary(self._calls.notices.GetNotice, request)).notice)

    async def test_notice(self, name: str) -> None:
        """Send a test to the receiver of a notice."""
        await self._calls.unary(self._calls.notices.TestNotice, adapter.notice.test_request(name))

    async def delete_notice(self, name: str) -> None:
        """Delete a notice."""
        await self._calls.unary(self._calls.notices.DeleteNotice, adapter.notice.delete_request(name))

    # Secrets

    async def set_secret(
        self, name: str, value: str, *, environment_name: str | None = None, default_exposed: bool | None = None
    ) -> None:
        """Write a secret. `default_exposed` says whether apps that name no secrets get it."""
        request = adapter.secret.set_request(
            name, value, environment_name=environment_name, default_exposed=default_exposed
        )
        await self._calls.unary(self._calls.secrets.SetSecret, request)

    async def unset_secret(self, name: str, *, environment_name: str | None = None) -> None:
        """Delete a secret."""
        await self._calls.unary(
            self._calls.secrets.SetSecret, adapter.secret.unset_request(name, environment_name=environment_name)
        )

    async def list_secrets(self, *, environment_name: str | None = None) -> list[adapter.secret.ServerlessSecret]:
        """List the secrets of an environment, without their values."""
        return adapter.secret.secrets(
            await self._calls.unary(self._calls.secrets.ListSecrets, adapter.secret.list_request(environment_name))
        )

    # Environments

    async def create_environment(
        self, name: str, *, description: str | None = None
    ) -> adapter.environment.EnvironmentInfo:
        """Create an environment without apps or secrets."""
        request = adapter.environment.create_request(name, description=description)
        return adapter.environment.created(await self._calls.unary(self._calls.environments.CreateEnvironment, request))

    async def list_environments(self) -> list[adapter.environment.EnvironmentInfo]:
        """List all environments."""
        request = adapter.environment.list_request()
        return adapter.environment.environment_infos(
            await self._calls.unary(self._calls.environments.ListEnvironments, request)
        )

    async def delete_environment(self, name: str) -> None:
        """Delete an environment and its secrets."""
        await self._calls.unary(self._calls.environments.DeleteEnvironment, adapter.environment.delete_request(name))

    # Logs

    async def list_logs(
        self, query: adapter.log.LogQuery, *, page_size: int = 0, page_token: str | None = None
    ) -> adapter.log.LogPage:
        """Return one page of stored lines. Only this project's controllers serve this call.

        Args:
            query: which lines.
            page_size: at most this many lines on this page; 0 leaves it to the controller.
            page_token: from the previous page, whose query must be the same.
        """
        request = adapter.log.list_request(query, page_size=page_size, page_token=page_token)
        return adapter.log.page(await self._calls.unary(self._calls.logs.ListLogs, request))

    def follow_logs(
        self, query: adapter.log.LogQuery, *, cursor: str | None = None
    ) -> AsyncGenerator[adapter.log.LogBatch, None]:
        """Stream lines as they are written. Closing it cancels the call.

        Only this project's controllers serve this call.

        Args:
            query: which lines; `until` and `lines` do not apply.
            cursor: where to resume; None starts at the query's `since`, or now.
        """
        return self._calls.stream(
            self._calls.logs.FollowLogs, adapter.log.follow_request(query, cursor=cursor), adapter.log.batch
        )
