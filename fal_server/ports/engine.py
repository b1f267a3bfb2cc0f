"""Where runners run: what a runner is given, what can be done with it, and what is seen of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from fal_server.core.identity import AccountId
from fal_server.core.lifecycle import Observation
from fal_server.core.logs import LogEntry
from fal_server.core.machines import Node
from fal_server.core.revisions import AppFile, EnvironmentSpec, HealthCheck, Payload
from fal_server.core.runners import Runner

LogSink: TypeAlias = "Callable[[Sequence[LogEntry]], Awaitable[None]]"
"""Stores log lines, and returns when they are durable. Lines of one runner come in order; a line may come again."""
LastSequence: TypeAlias = "Callable[[str], Awaitable[int]]"
"""Returns the highest sequence that is stored for a runner, by its id; 0 for none."""
Building: TypeAlias = "Callable[[], Awaitable[object]]"
"""Takes note that an image is fetched or built for a runner that is to start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """What a new runner is given.

    Code and files are named by their digests, and the environment by its specification: the engine resolves them on
    the machine that the runner is to run on.

    Attributes:
        environment: the name of the environment that the app belongs to, such as `main`.
        packages: the environment that its code runs in; without function and entrypoint, a container is run as it is.
        variables: environment variables, secrets among them: never logged, never in an argument.
        redact: values that must not appear in its logs.
        token: which start this is; a second start with the same token is the first one.
        app_port: the port that the app's code asks for; if it listens on that, it gets the runner's own instead.
        app_metrics_port: the same for metrics.
    """

    account: AccountId
    runner_id: str
    app_name: str
    environment: str
    revision_id: str
    machine_type: str
    packages: EnvironmentSpec
    function: Payload | None = None
    entrypoint: str | None = None
    setup: Payload | None = None
    files: tuple[AppFile, ...] = ()
    serves_http: bool
    serves_metrics: bool
    app_port: int | None = None
    app_metrics_port: int | None = None
    variables: Mapping[str, str] = field(repr=False)
    redact: tuple[str, ...] = field(repr=False, default=())
    termination_grace_seconds: int
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """A command to run beside a runner's worker; an empty command is a login shell."""

    command: tuple[str, ...]
    tty: bool
    height: int = 24
    width: int = 80
    cwd: str | None = None
    variables: Mapping[str, str] = field(repr=False, default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecOutput:
    """Bytes from a command (stream 1 stdout, 2 stderr), or its exit code, which comes last and alone."""

    data: bytes = b""
    stream: int = 1
    exit_code: int | None = None


class ExecSession(Protocol):
    """A command under way. Closing it hangs the command up."""

    async def write(self, data: bytes) -> None:
        """Send to its stdin; waits while the command does not read."""
        ...

    async def resize(self, height: int, width: int) -> None:
        """Tell a terminal's new size, in character cells."""
        ...

    async def send_eof(self) -> None:
        """Close its stdin; on a terminal, type the end-of-file character."""
        ...

    async def signal(self, number: int) -> None:
        """Send a signal to the command's group; on a terminal, to the foreground job."""
        ...

    def output(self) -> AsyncIterator[ExecOutput]:
        """What it writes, as it comes; ends after the exit code.

        Raises:
            Unavailable: the link to the runner broke, so that the exit code is not known.
        """
        ...

    async def close(self) -> None:
        """Hang up."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """A runner of an earlier controller that is watched again; `exited`: its worker has ended, its shim waits."""

    node: str
    handle: str
    exited: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a function returned or raised, still serialised."""

    method: str
    definition: bytes
    raised: bool = False
    traceback: str | None = None
    exception_type: str | None = None
    exception_message: str | None = None


class HealthProber(Protocol):
    """Asks runners whether they are well."""

    async def probe(self, host: str, port: int, check: HealthCheck) -> str | None:
        """Make one check; None where it was answered with 2xx in time, else what is wrong, in words.

        Raises:
            NodeTrouble: this machine cannot ask now, which says nothing of the runner.
        """
        ...


class Engine(Protocol):
    """Where runners run. One task drives `observations()`; all else may be called from anywhere in the loop."""

    def nodes(self) -> Sequence[Node]:
        """The machines that there are, with all that they have, and what is wrong with them; asked at every plan."""
        ...

    async def start(self, spec: LaunchSpec, building: Building | None = None) -> tuple[str, str]:
        """Start a runner; return once its shim has taken the order, long before it is ready.

        Its environment is built if it is not there.

        Args:
            building: awaited before an image is fetched or built, which may take minutes.

        Returns:
            The node that it runs on, and the handle by which `adopt` finds this very process again.

        Raises:
            NodeTrouble: the machine cannot start it now, and the app is not to blame; nothing is left of it.
            FailedPrecondition: its environment cannot be built, or a part of its code is missing.
            Unavailable: it could not be started; nothing is left of it.
        """
        ...

    async def stop(self, runner: Runner, grace_seconds: float) -> None:
        """SIGTERM now, SIGKILL of its whole group when the grace is over. Returns when asked, not when gone."""
        ...

    async def kill(self, runner: Runner) -> None:
        """SIGKILL of its whole group now; never of anything that is not its own. Returns when asked."""
        ...

    async def adopt(self, runner: Runner) -> Adopted | None:
        """Watch again a runner that an earlier controller started; None where it is gone (all of it is, then)."""
        ...

    async def left_behind(self, known: Sequence[str]) -> Sequence[str]:
        """The ids of runners of which something is kept here and that are none of these, nor adopted."""
        ...

    async def release_strangers(self, known: Sequence[str]) -> None:
        """End and delete whatever is kept here of runners that are none of these, nor adopted."""
        ...

    async def exec(self, runner: Runner, request: ExecRequest) -> ExecSession:
        """Run a command beside the worker, in its environment and directory.

        Raises:
            Unavailable: the runner cannot be reached.
        """
        ...

    async def result(self, runner: Runner) -> RunResult:
        """Wait for the value that an ephemeral runner's function returned.

        Raises:
            Unavailable: the runner ended without one.
        """
        ...

    def observations(self) -> AsyncIterator[Observation]:
        """What happens to the runners, in order for each runner."""
        ...

    async def release(self, runner_id: str) -> None:
        """The end of this runner is stored: what was kept for it (spool, socket, directory) may go."""
        ...

    async def close(self) -> None:
        """Let go of the runners without ending them: they go on and can be adopted."""
        ...
