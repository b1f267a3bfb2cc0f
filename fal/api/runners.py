"""`client.runners`: list the processes that serve apps. It also reads their logs, enters and stops them."""

# Generated from fal/api/aio/runners.py by scripts/gen_blocking.py; do not edit.

from __future__ import annotations

import builtins
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal, overload

from fal_grpc import adapter
from fal_grpc.adapter.runner import RunnerInfo, RunnerState, check_runner_id, parse_states
from fal_grpc.adapter.values import check_on_notice, count, flag, no_notice, optional_text
from fal_grpc.errors import ArgumentError, UnimplementedError, runner_not_found

if TYPE_CHECKING:
    from fal.api.opener import Opener
    from fal.gpus import GpuUsage
    from fal_grpc.adapter.changes import Changes
    from fal_grpc.adapter.execs import ExecInfo
    from fal_grpc.adapter.log import LogEntry, LogOrigin
    from fal_grpc.adapter.node import NodeList
    from fal_grpc.adapter.shell import ExecResult
    from fal_grpc.controller import Controller
    from fal_grpc.exec_session import ExecSession
    from fal_grpc.shell_session import ShellSession

LOOK_BACK = timedelta(days=1)
"""How long ago a runner may have ended for `get` to find it on a controller that can only list runners."""


class RunnersNamespace:
    """The runners of all apps; `fal runners` on the command line. Use it as `client.runners`.

    Example:
        with SyncServerlessClient() as client:
            for runner in client.runners.list(state=["running"]):
                result = client.runners.exec(runner.runner_id, ["nvidia-smi"])
                print(result.text)
    """

    def __init__(self, client: Opener) -> None:
        self.client = client

    def list(
        self, *, since: datetime | None = None, state: Sequence[RunnerState | str] | None = None
    ) -> list[RunnerInfo]:
        """List the runners that are running or starting.

        Args:
            since: also list those that ended at or after this time; a naive one is local time.
            state: only those in one of these states, such as ["running", "idle"]; None or ["all"] means any.
        """
        wanted = parse_states(state)
        controller = self.client.controller()
        found = controller.list_runners(since=since)
        return found if wanted is None else [runner for runner in found if runner.state in wanted]

    def watch(
        self,
        *,
        since: datetime | None = None,
        state: Sequence[RunnerState | str] | None = None,
        app: str | None = None,
        environment_name: str | None = None,
    ) -> Generator[builtins.list[RunnerInfo], None, None]:
        """Yield the list of runners at each change. It is also yielded about every two seconds.

        If the controller is unreachable for a while, it continues with the list at that time. Close it to stop.

        Args:
            since: also list those that ended at or after this time; a naive one is local time.
            state: only those in one of these states, such as ["running", "idle"]; None or ["all"] means any.
            app: only the runners of this app; None means all.
            environment_name: the app's environment; None means the default one.
        """
        from fal.api import watch_reading
        from fal.api.watches import WatchedRunners

        wanted = parse_states(state)
        app = optional_text("app", app)

        def stream(controller: Controller, version: str) -> Generator[Changes[RunnerInfo], None, None]:
            return controller.watch_runners(alias=app, environment_name=environment_name, since=since, version=version)

        def fetch(controller: Controller) -> builtins.list[RunnerInfo]:
            if app is None:
                found = controller.list_runners(since=since)
            else:
                found = controller.list_alias_runners(app, since=since, environment_name=environment_name)
            return found if wanted is None else [runner for runner in found if runner.state in wanted]

        return watch_reading.read(self.client, WatchedRunners(since=since, states=wanted), stream, fetch)

    def get(self, runner_id: str) -> RunnerInfo:
        """Return one runner, live or ended.

        Raises:
            NotFoundError: there is no such runner.
        """
        controller = self.client.controller()
        try:
            return controller.get_runner(runner_id)
        except UnimplementedError:
            # This controller can only list runners, so search those of the last day.
            listed = controller.list_runners(since=datetime.now(UTC) - LOOK_BACK)
        for runner in listed:
            if runner.runner_id == runner_id:
                return runner
        raise runner_not_found(runner_id)

    def stop(
        self, runner_id: str, replace_first: bool = False, *, grace: int | None = None
    ) -> None:  # the first two as published
        """Stop a runner once it has finished its requests. It gets no new ones.

        Args:
            runner_id: the runner.
            replace_first: start another in its place, and stop this one only when that one is ready.
            grace: seconds that its process then has to end by itself, at most 30; None means the app's setting.
        """
        seconds = count("grace", grace)
        controller = self.client.controller()
        controller.stop_runner(runner_id, replace_first=replace_first, grace_seconds=seconds)

    def kill(self, runner_id: str) -> None:
        """Kill a runner at once; requests in flight fail."""
        controller = self.client.controller()
        controller.kill_runner(runner_id)

    def nodes(self) -> NodeList:
        """List the machines of runners with their GPUs, and the machine types.

        Only this project's controllers support it.
        """
        controller = self.client.controller()
        return controller.list_nodes()

    def gpus(self) -> GpuUsage:
        """Count the GPUs of all runners, by model. The result is like {"gpus": {"H100": 3}, "total": 3}."""
        from fal.gpus import METRICS_PATH, usage_of_all

        rest = self.client.rest()
        return usage_of_all(rest.ask("GET", METRICS_PATH))

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
        on_progress: Callable[[datetime], None] | None = None,
    ) -> Generator[LogEntry, None, None]:
        """Read the log lines of a runner, oldest first.

        Args:
            runner_id: the runner, live or ended.
            follow: continue with lines as they are written, until the runner ends. If the controller is unreachable
                for a while, it resumes without a gap and repeats no line.
            since: only lines at or after this time; None means all, or with follow those of the last minute. This and
                `until` are local time if naive.
            until: only lines before this time; not with follow.
            search: only lines that contain this text, ignoring case.
            lines: at most this many, the newest ones; with follow, they come before the new lines.
            oldest: with `lines`, the oldest ones instead; not with follow.
            sources: only lines from these: "build", "system", "stdout", "stderr"; empty means all.
            request_id: only lines written for this request.
            on_progress: called repeatedly with the time that a search through stored lines has reached.

        Returns:
            The lines. Close it (or break out of the loop and drop it) to stop following.

        Raises:
            NotFoundError: there is no such runner.
        """
        from fal.api import log_reading
        from fal.api.logs import log_query

        query = log_query(
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
        return log_reading.read(self.client, query, follow=follow, on_progress=on_progress)

    @overload
    def exec(
        self,
        runner_id: str,
        command: Sequence[str],
        *,
        tty: bool = False,
        stdin: bytes | str | Iterable[bytes] | None = None,
        timeout: float | None = None,  # the remote command's limit, which the runner keeps
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        keep: bool = False,
        detach: Literal[False] = False,
    ) -> ExecResult: ...
    @overload
    def exec(
        self,
        runner_id: str,
        command: Sequence[str],
        *,
        tty: bool = False,
        stdin: bytes | str | Iterable[bytes] | None = None,
        timeout: float | None = None,  # the remote command's limit, which the runner keeps
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        keep: bool = False,
        detach: Literal[True],
    ) -> ExecInfo: ...
    def exec(
        self,
        runner_id: str,
        command: Sequence[str],
        *,
        tty: bool = False,
        stdin: bytes | str | Iterable[bytes] | None = None,
        timeout: float | None = None,  # the remote command's limit, which the runner keeps
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        keep: bool = False,
        detach: bool = False,
    ) -> ExecResult | ExecInfo:
        """Run a command in a runner and wait for its end.

        Args:
            runner_id: the runner.
            command: the command and its arguments, for example ["ls", "-l"]; no shell interprets them.
            tty: allocate a terminal; all output is then in stdout.
            stdin: its input; None means empty.
            timeout: seconds after which the command is ended; None sets no limit.
            cwd: the directory to run it in; None means the app's.
            env: environment variables in addition to the app's.
            keep: keep it running if this process goes away; otherwise it then gets SIGHUP.
            detach: return once it runs, without reading its output. The command is kept; `attach` reads its output and
                can send input.

        Returns:
            Its exit code and its output; with `detach`, its id and state.

        Raises:
            ExecLinkError: the link broke for good, so the command's outcome is unknown.
            DeadlineExceededError: it did not end in time. It is a TimeoutError.
        """
        if not command:
            raise ArgumentError("command", "must have at least one entry; `shell` opens a login shell")
        if flag("detach", detach):
            if stdin is not None:
                raise ArgumentError("stdin", "cannot be given to a command that is detached")
            spec = adapter.execs.ExecSpec(
                runner_id=runner_id, command=command, tty=tty, cwd=cwd, env=env, keep=True, timeout_seconds=timeout
            )
            controller = self.client.controller()
            return controller.start_detached(spec)
        stdout, stderr = bytearray(), bytearray()
        with self.exec_stream(
            runner_id, command, tty=tty, stdin=stdin, timeout=timeout, cwd=cwd, env=env, keep=keep
        ) as session:
            for output in session:
                (stderr if output.is_stderr else stdout).extend(output.data)
            return adapter.shell.ExecResult(exit_code=session.wait(), stdout=bytes(stdout), stderr=bytes(stderr))

    def exec_stream(
        self,
        runner_id: str,
        command: Sequence[str],
        *,
        tty: bool = False,
        stdin: bytes | str | Iterable[bytes] | None = None,
        interactive: bool = False,
        timeout: float | None = None,  # the remote command's limit, which the runner keeps
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        keep: bool = False,
        size: tuple[int, int] | None = None,
        term: str | None = None,
        on_notice: Callable[[str], None] = no_notice,
    ) -> ExecSession | ShellSession:
        """Run a command in a runner and read output as it arrives.

        Iterate over the result for the output; afterwards `exit_code` is set, and `wait()` returns it. If the link
        breaks, or the controller restarts, it resumes with the next byte. It takes the arguments of `exec`, and:

        Args:
            interactive: send input with the session's `send`, `resize` and `close_input` instead of `stdin`.
            size: rows and columns of the terminal at the start.
            term: the type of the terminal, as in TERM.
            on_notice: called with a message if the link breaks, if it is back, and if output was dropped.
        """
        spec = adapter.execs.ExecSpec(
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
        controller = self.client.controller()
        return controller.start_exec(spec, stdin=stdin, interactive=interactive, on_notice=on_notice)

    def attach(
        self, exec_id: str, *, runner_id: str | None = None, on_notice: Callable[[str], None] = no_notice
    ) -> ExecSession:
        """Read a running or recently ended command. It starts with the earliest output that is kept.

        Args:
            exec_id: the command's id, from `exec` with `detach` or from `execs`.
            runner_id: its runner; None searches all runners.
            on_notice: as for `exec_stream`.

        Raises:
            NotFoundError: there is no such command, or it ended too long ago.
        """
        check_on_notice(on_notice)
        controller = self.client.controller()
        info = controller.get_exec(exec_id, runner_id=runner_id)
        return controller.attach_exec(info, on_notice=on_notice)

    def execs(self, runner_id: str | None = None) -> builtins.list[ExecInfo]:
        """List commands, oldest first. They run or ended within the last ten minutes.

        Args:
            runner_id: only those of this runner; None means all.
        """
        controller = self.client.controller()
        return controller.list_execs(runner_id=runner_id)

    def shell(self, runner_id: str) -> ExecSession | ShellSession:
        """Open a login shell with a terminal in a runner. Send input with the session's `send`."""
        controller = self.client.controller()
        return controller.start_exec(
            adapter.execs.ExecSpec(runner_id=runner_id, command=(), tty=True), interactive=True
        )
