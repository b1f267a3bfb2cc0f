"""Where runners run: their inputs, the actions on them, and the observations."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from fal_server.core.addresses import RunnerAddress
from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import AccountId
from fal_server.core.lifecycle import Observation
from fal_server.core.logs import LogEntry
from fal_server.core.machines import Node, RunnerLimits
from fal_server.core.resources import ResourceSample
from fal_server.core.revisions import AppFile, EnvironmentSpec, HealthCheck, Payload
from fal_server.core.runners import Runner

LogSink: TypeAlias = "Callable[[Sequence[LogEntry]], Awaitable[None]]"
"""Stores log lines, and returns when they are durable. Lines of one runner come in order; a line may come again."""
LastSequence: TypeAlias = "Callable[[str], Awaitable[int]]"
"""Returns the highest sequence that is stored for a runner, by its id; 0 for none."""
Building: TypeAlias = "Callable[[], Awaitable[object]]"
"""Notes that an image is being fetched or built for a runner."""

_MOST_CELLS = 10_000
_MOST_COMMAND_BYTES = 128 * 1024  # Linux takes no longer argument


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """What a new runner is given.

    Code and files are named by their digests, and the environment by its specification: the engine resolves them on
    the machine that the runner is to run on.

    Attributes:
        node: the machine that it is to run on.
        environment: the name of the environment that the app belongs to, such as `main`.
        packages: the environment that its code runs in; without function and entrypoint, a container is run as it is.
        variables: environment variables, secrets among them: never logged, never in an argument.
        redact: values that must not appear in its logs.
        token: which start this is; a second start with the same token is the first one.
        limits: what bounds it, with its machine type.
        gpus: the ids of the GPUs of the node that are its own.
        app_port: the port that the app's code asks for; if it listens on that, it gets the runner's own instead.
        app_metrics_port: the same for metrics.
        network_host: where its port is opened for the controller's machine, too; empty without a trusted network.
    """

    account: AccountId
    runner_id: str
    node: str
    app_name: str
    environment: str
    revision_id: str
    limits: RunnerLimits
    packages: EnvironmentSpec
    gpus: tuple[str, ...] = ()
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
    network_host: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedStart:
    """What is known of a runner that may be asked for.

    Attributes:
        packages, function: as in LaunchSpec.
        machine_types: those that it may have, the preferred one first.
        num_gpus: how many GPUs it has, instead of its machine type's.
        variables: those of all runners of the account; no secret is among them.
    """

    account: AccountId
    packages: EnvironmentSpec
    function: Payload | None
    machine_types: tuple[str, ...]
    num_gpus: int | None
    variables: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalSize:
    """The size of a terminal, in character cells.

    Raises:
        InvalidArgument: a number is not one that a terminal can have.
    """

    height: int = 24
    width: int = 80

    def __post_init__(self) -> None:
        if not (1 <= self.height <= _MOST_CELLS and 1 <= self.width <= _MOST_CELLS):
            raise InvalidArgument(
                "tty_size", f"tty_size is {self.height} x {self.width}: both must lie between 1 and {_MOST_CELLS}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """A command to run beside a runner's worker. An empty command is a login shell.

    Raises:
        InvalidArgument: no process can be started with such a command.
    """

    command: tuple[str, ...]
    tty: bool
    size: TerminalSize = TerminalSize()
    cwd: str | None = None
    variables: Mapping[str, str] = field(repr=False, default_factory=dict[str, str])

    def __post_init__(self) -> None:
        if any("\0" in argument for argument in self.command):
            raise InvalidArgument("command", "command holds a NUL character, which no argument can")
        if sum(len(argument.encode()) for argument in self.command) > _MOST_COMMAND_BYTES:
            raise InvalidArgument(
                "command", f"command is longer than {_MOST_COMMAND_BYTES} bytes: pass the rest as input"
            )
        if self.command and not self.command[0]:
            raise InvalidArgument("command", "command starts with an empty text: name the program to run")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecOutput:
    """Bytes from a command, or its exit code, alone at the end. Stream 1 is stdout, and stream 2 is stderr."""

    data: bytes = b""
    stream: int = 1
    exit_code: int | None = None


class ExecSession(Protocol):
    """A running command; closing the session ends it."""

    async def write(self, data: bytes) -> None:
        """Send to its stdin; wait while the command does not read."""
        ...

    async def resize(self, size: TerminalSize) -> None:
        """Set the size of its terminal."""
        ...

    async def send_eof(self) -> None:
        """Close its stdin; on a terminal, type the end-of-file character."""
        ...

    async def signal(self, number: int) -> None:
        """Signal the command's process group; on a terminal, the foreground job."""
        ...

    def output(self) -> AsyncIterator[ExecOutput]:
        """Yield what it writes, as it comes. The exit code is the last.

        Raises:
            Unavailable: the connection to the runner broke, so the exit code is not known.
        """
        ...

    async def close(self) -> None:
        """End the command with SIGHUP, and after 2 s with SIGKILL."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """A runner of an earlier controller that is followed again.

    Attributes:
        exited: its worker has ended.
        requests_in_flight: what it still works on; None if it cannot say.
        silent: its node does not answer. It counts as living, and could not be asked what it works on.
    """

    node: str
    handle: str
    exited: bool = False
    requests_in_flight: int | None = None
    silent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a function returned or raised, still serialized."""

    method: str
    definition: bytes
    raised: bool = False
    traceback: str | None = None
    exception_type: str | None = None
    exception_message: str | None = None


class HealthProber(Protocol):
    """Checks whether runners are healthy."""

    async def probe(self, address: RunnerAddress, check: HealthCheck) -> str | None:
        """Make one check.

        Args:
            address: where the app listens.

        Returns:
            None if the answer was 2xx in time, else what is wrong, for people to read.

        Raises:
            NodeTrouble: this machine cannot make the check now, which says nothing about the runner.
        """
        ...


class MetricsReader(Protocol):
    """Reads the metrics pages of apps."""

    async def read(self, address: RunnerAddress, *, most_bytes: int, seconds: float) -> bytes:
        """Return an app's page in the text format 0.0.4.

        Raises:
            BadPage: it has none, did not send it in time, or it is larger than `most_bytes`.
        """
        ...


class Engine(Protocol):
    """Runs runners. One task reads `observations()`; any task of the event loop may call the rest.

    tests/engines/conformance holds every implementation to this.
    """

    def nodes(self) -> Sequence[Node]:
        """List the machines, their total resources, and what is wrong with them. Every plan asks."""
        ...

    async def start(self, spec: LaunchSpec, building: Building | None = None) -> tuple[str, str]:
        """Start a runner. It returns once the runner's shim has taken the order, long before the runner is ready.

        Its environment is built if it is missing. A second start with the same token returns the first one.

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
        """Send SIGTERM now, and SIGKILL to everything of it after the grace. It returns before the runner has ended.

        A runner that is not there is reported as GONE.
        """
        ...

    async def kill(self, runner: Runner) -> None:
        """Send SIGKILL to everything of it now, and to nothing else. It returns before the runner has ended.

        A runner that is not there is reported as GONE.
        """
        ...

    async def adopt(self, runner: Runner) -> Adopted | None:
        """Follow a runner that an earlier controller started; its observations are repeated.

        Returns:
            None if it is gone. Then nothing of it is alive, and the log that it left is stored.
        """
        ...

    async def requests_in_flight(self, runner: Runner) -> int | None:
        """Return how many requests a runner works on. None if it has ended or cannot say.

        Raises:
            Unavailable: it may live, but does not answer, or its node does not.
        """
        ...

    async def resources(self, runner: Runner) -> ResourceSample | None:
        """Measure what a runner's processes use. None if it cannot be asked now."""
        ...

    async def left_behind(self, known: Sequence[str]) -> Sequence[str]:
        """List the runners that left something here, except known and followed ones.

        Args:
            known: the ids of runners to leave out.
        """
        ...

    async def release_strangers(self, known: Sequence[str]) -> None:
        """End and delete what runners left here. It spares known and followed runners."""
        ...

    async def exec(self, runner: Runner, request: ExecRequest) -> ExecSession:
        """Run a command beside the worker, in its environment and directory.

        Raises:
            Unavailable: the runner cannot be reached.
            FailedPrecondition: it has ended.
            ResourceExhausted: too many commands run in it.
            InvalidArgument: there can be no such command.
        """
        ...

    async def result(self, runner: Runner) -> RunResult:
        """Wait for the value that an ephemeral runner's function returned.

        Raises:
            Unavailable: the runner ended without a result.
        """
        ...

    def observations(self) -> AsyncIterator[Observation]:
        """Yield what happens to each runner: LAUNCHED, READY, STOPPING, then GONE.

        GONE comes once nothing of the runner is alive and its last lines are stored, or that took too long. Ends when
        the engine is closed.
        """
        ...

    async def release(self, runner_id: str) -> None:
        """Delete what is kept for a runner (spool, socket, directory). Its end is stored now.

        It lasts until the runner's last log lines are stored.

        Raises:
            Unavailable: the engine was closed before they were; the next start stores them.
        """
        ...

    async def close(self) -> None:
        """Stop following the runners; they go on and can be adopted. Release those that have ended."""
        ...
