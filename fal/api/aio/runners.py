"""`client.runners` for asyncio."""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, overload

from fal.api.aio.log_reading import read
from fal.api.logs import not_listed, question
from fal.api.runners import LOOK_BACK, RunnersNamespace
from fal_grpc.adapter.execs import ExecInfo, ExecSpec, no_notice
from fal_grpc.adapter.log import LogEntry, LogOrigin
from fal_grpc.adapter.runner import RunnerInfo, RunnerState, check_runner_id, parse_states
from fal_grpc.adapter.shell import STDERR, ExecResult
from fal_grpc.documented import documented_by
from fal_grpc.errors import ArgumentError, UnimplementedError

if TYPE_CHECKING:
    from fal.api.aio.client import AsyncServerlessClient
    from fal.gpus import GpuUsage
    from fal_grpc.aio_exec_session import AsyncExecSession
    from fal_grpc.aio_session import AsyncShellSession


@documented_by(RunnersNamespace)
class AsyncRunnersNamespace:
    """`RunnersNamespace` for asyncio: `logs` returns what `async for` reads."""

    def __init__(self, client: AsyncServerlessClient) -> None:
        self.client = client

    async def list(
        self, *, since: datetime | None = None, state: Sequence[RunnerState | str] | None = None
    ) -> list[RunnerInfo]:
        wanted = parse_states(state)
        controller = await self.client.controller()
        found = await controller.list_runners(since=since)
        return found if wanted is None else [runner for runner in found if runner.state in wanted]

    async def get(self, runner_id: str) -> RunnerInfo:
        controller = await self.client.controller()
        try:
            return await controller.get_runner(runner_id)
        except UnimplementedError:
            listed = await controller.list_runners(since=datetime.now(UTC) - LOOK_BACK)
        for runner in listed:
            if runner.runner_id == runner_id:
                return runner
        raise not_listed(runner_id)

    async def stop(
        self, runner_id: str, replace_first: bool = False, *, grace: int | None = None
    ) -> None:  # the first two as published
        controller = await self.client.controller()
        await controller.stop_runner(runner_id, replace_first=replace_first, grace_seconds=grace)

    async def kill(self, runner_id: str) -> None:
        controller = await self.client.controller()
        await controller.kill_runner(runner_id)

    async def gpus(self) -> GpuUsage:
        import asyncio

        from fal.gpus import usage

        return await asyncio.to_thread(lambda: usage(self.client.rest()))

    def logs(
        self,
        runner_id: str,
        *,
        follow: bool = False,
        since: datetime | None = None,
        until: datetime | None = None,
        search: str | None = None,
        lines: int | None = None,
        oldest: bool = False,
        sources: Sequence[LogOrigin | str] = (),
        request_id: str | None = None,
    ) -> AsyncGenerator[LogEntry, None]:
        asked = question(
            runner_id=check_runner_id(runner_id),
            follow=follow,
            since=since,
            until=until,
            search=search,
            lines=lines,
            oldest=oldest,
            sources=sources,
            request_id=request_id,
        )
        return read(self.client, asked, follow=follow)

    @overload
    async def exec(
        self,
        runner_id: str,
        command: Sequence[str],
        *,
        tty: bool = False,
        stdin: bytes | str | Iterable[bytes] | AsyncIterable[bytes] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # the remote command's limit, which the runner keeps
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        keep: bool = False,
        detach: Literal[False] = False,
    ) -> ExecResult: ...
    @overload
    async def exec(
        self,
        runner_id: str,
        command: Sequence[str],
        *,
        tty: bool = False,
        stdin: bytes | str | Iterable[bytes] | AsyncIterable[bytes] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # the remote command's limit, which the runner keeps
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        keep: bool = False,
        detach: Literal[True],
    ) -> ExecInfo: ...
    async def exec(
        self,
        runner_id: str,
        command: Sequence[str],
        *,
        tty: bool = False,
        stdin: bytes | str | Iterable[bytes] | AsyncIterable[bytes] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # the remote command's limit, which the runner keeps
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        keep: bool = False,
        detach: bool = False,
    ) -> ExecResult | ExecInfo:
        if not command:
            raise ArgumentError("command", "must have at least one entry; `shell` opens a login shell")
        if detach:
            if stdin is not None:
                raise ArgumentError("stdin", "cannot be given to a command that is detached")
            spec = ExecSpec(
                runner_id=runner_id, command=command, tty=tty, cwd=cwd, env=env, keep=True, timeout_seconds=timeout
            )
            return await (await self.client.controller()).start_detached(spec)
        stdout, stderr = bytearray(), bytearray()
        async with await self.exec_stream(
            runner_id, command, tty=tty, stdin=stdin, timeout=timeout, cwd=cwd, env=env, keep=keep
        ) as session:
            async for output in session:
                (stderr if output.stream == STDERR else stdout).extend(output.data)
            return ExecResult(exit_code=await session.wait(), stdout=bytes(stdout), stderr=bytes(stderr))

    async def exec_stream(
        self,
        runner_id: str,
        command: Sequence[str],
        *,
        tty: bool = False,
        stdin: bytes | str | Iterable[bytes] | AsyncIterable[bytes] | None = None,
        interactive: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109  # the remote command's limit, which the runner keeps
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        keep: bool = False,
        size: tuple[int, int] | None = None,
        term: str | None = None,
        on_notice: Callable[[str], None] = no_notice,
    ) -> AsyncExecSession | AsyncShellSession:
        spec = ExecSpec(
            runner_id=runner_id,
            command=command,
            tty=tty,
            size=size,
            term=term,
            cwd=cwd,
            env=env,
            keep=keep,
            timeout_seconds=timeout,
        )
        controller = await self.client.controller()
        return await controller.start_exec(spec, stdin=stdin, interactive=interactive, on_notice=on_notice)

    async def attach(
        self, exec_id: str, *, runner_id: str | None = None, on_notice: Callable[[str], None] = no_notice
    ) -> AsyncExecSession:
        controller = await self.client.controller()
        info = await controller.get_exec(exec_id, runner_id=runner_id)
        return await controller.attach_exec(info, on_notice=on_notice)

    async def execs(self, runner_id: str | None = None) -> builtins.list[ExecInfo]:
        return await (await self.client.controller()).list_execs(runner_id=runner_id)

    async def shell(self, runner_id: str) -> AsyncExecSession | AsyncShellSession:
        controller = await self.client.controller()
        return await controller.start_exec(ExecSpec(runner_id=runner_id, command=(), tty=True), interactive=True)
