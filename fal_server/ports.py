"""The Protocols through which decisions are carried out; adapters implement them, services and loops call them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeAlias

from fal_server.core.accounts import Environment, Key, SealedSecret
from fal_server.core.apps import App
from fal_server.core.containers import Container
from fal_server.core.history import StateChange
from fal_server.core.lifecycle import Observation
from fal_server.core.logs import LogEntry, LogPage, LogQuery
from fal_server.core.machines import Node
from fal_server.core.revisions import AppFile, EnvironmentSpec, HealthCheck, Payload, Revision
from fal_server.core.runners import Process, Runner


class Clock(Protocol):
    """The time."""

    def now(self) -> datetime:
        """The current moment, aware, in UTC."""
        ...


class Store(Protocol):
    """What must survive a crash. Each call is one transaction; when it returns, its effect is durable."""

    async def register(self, revision: Revision, app: App) -> None:
        """Add a revision and write (insert or replace) its app, both or neither."""
        ...

    async def add_revision(self, revision: Revision) -> None:
        """Add a revision without an app (ephemeral runs)."""
        ...

    async def get_revision(self, revision_id: str) -> Revision | None:
        """One revision, or None."""
        ...

    async def list_revisions(self, app_name: str | None, environment: str | None) -> list[Revision]:
        """Revisions, newest first; None does not restrict."""
        ...

    async def delete_revision(self, revision_id: str) -> bool:
        """Delete; False where it was not there."""
        ...

    async def save_app(self, app: App) -> None:
        """Insert or replace an app."""
        ...

    async def get_app(self, name: str) -> App | None:
        """One app by its full name, or None."""
        ...

    async def list_apps(self, environment: str | None) -> list[App]:
        """Apps by name; None is all environments."""
        ...

    async def delete_app(self, name: str) -> App | None:
        """Delete; what was deleted, or None where it was not there."""
        ...

    async def save_runners(self, runners: Sequence[Runner], changes: Sequence[StateChange] = (), /) -> None:
        """Insert or replace these runners and keep what they went through, all or nothing."""
        ...

    async def runner_history(self, runner_id: str) -> list[StateChange]:
        """What a runner went through, in order; empty where it is not known."""
        ...

    async def get_runner(self, runner_id: str) -> Runner | None:
        """One runner, also an ended one within retention, or None."""
        ...

    async def list_runners(self, ended_since: datetime | None) -> list[Runner]:
        """All runners that have not ended and, where given, those that ended since `ended_since`; oldest first."""
        ...

    async def forget_runners(self, ended_before: datetime) -> int:
        """Delete runners that ended before this; how many."""
        ...

    async def add_key(self, key: Key) -> None:
        """Add a key."""
        ...

    async def get_key(self, key_id: str) -> Key | None:
        """One key, also a revoked one, or None."""
        ...

    async def list_keys(self) -> list[Key]:
        """The keys that are not revoked, oldest first."""
        ...

    async def revoke_key(self, key_id: str, at: datetime) -> bool:
        """Mark a key as revoked; False where there is no such key that is not revoked."""
        ...

    async def save_secret(self, secret: SealedSecret) -> None:
        """Insert or replace a secret."""
        ...

    async def list_secrets(self, environment: str | None) -> list[SealedSecret]:
        """Secrets by environment and name; None is all environments."""
        ...

    async def delete_secret(self, environment: str, name: str) -> bool:
        """Delete; False where it was not there."""
        ...

    async def add_environment(self, environment: Environment) -> bool:
        """Add; False where the name is taken."""
        ...

    async def get_environment(self, name: str) -> Environment | None:
        """One environment, or None."""
        ...

    async def list_environments(self) -> list[Environment]:
        """All environments, the default one first, then by name."""
        ...

    async def delete_environment(self, name: str) -> bool:
        """Delete the environment with its secrets, in one transaction; False where it was not there."""
        ...

    async def close(self) -> None:
        """Let go of the database."""
        ...


class LogStore(Protocol):
    """Log lines, each exactly once."""

    async def append(self, entries: Sequence[LogEntry]) -> None:
        """Keep these lines; one whose (runner_id, sequence) is known is dropped. Durable when it returns."""
        ...

    async def last_sequence(self, runner_id: str) -> int:
        """The highest sequence number kept for a runner; 0 for none."""
        ...

    async def page(self, query: LogQuery) -> LogPage:
        """Some lines, in the query's order."""
        ...

    async def forget(self, before: datetime) -> int:
        """Delete the lines older than this; how many."""
        ...


class Blobs(Protocol):
    """Immutable bytes by the SHA-256 of their content: pickled callables and app files."""

    async def put(self, content: bytes) -> str:
        """Keep; the hash. Durable and whole when it returns."""
        ...

    def path(self, blob: str) -> Path:
        """Where the bytes are on this machine.

        Raises:
            NotFound: there is no such blob.
        """
        ...


class DeployedFiles(Protocol):
    """The files that go with apps, by the hash that a deploy gives; each has the permissions that it is to have."""

    def path(self, file_hash: str, /) -> Path:
        """Where the file is on this machine.

        Raises:
            NotFound: it was not uploaded.
        """
        ...


class Vault(Protocol):
    """Encryption of what is secret at rest."""

    def seal(self, context: str, value: str) -> bytes:
        """Encrypt; `context` (which secret it is) must be the same at opening."""
        ...

    def open(self, context: str, sealed: bytes) -> str:
        """Decrypt.

        Raises:
            Unavailable: the master key is not the one it was sealed with, or the bytes were changed.
        """
        ...


BuildLog: TypeAlias = "Callable[[LogEntry], Awaitable[None]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltEnvironment:
    """A finished environment: its content hash, its interpreter, and the container that this is in, if any."""

    env_id: str
    python: Path
    container: Container | None = None


class Builder(Protocol):
    """Builds the environments that apps run in, each once however many ask."""

    async def build(self, spec: EnvironmentSpec, *, force: bool, log: BuildLog) -> BuiltEnvironment:
        """Build, or find what was built; each line of output goes to `log` as it comes.

        Args:
            force: build anew even where it is there.

        Raises:
            Invalid: the configuration is wrong (field `environments`).
            Unsupported: the kind cannot be built here.
            Precondition: the build failed; the message holds the installer's own words.
        """
        ...

    def find(self, spec: EnvironmentSpec) -> BuiltEnvironment | None:
        """What was built for this spec, without building."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Everything that a new runner needs.

    Attributes:
        variables: environment variables, secrets among them: never logged, never an argv.
        redact: values that must not appear in its logs.
        app_port: the port that the app's code asks for; where it listens on that, it gets the runner's own instead.
        app_metrics_port: the same for metrics.
        attempt_token: which start this is; a second start with the same token is the first one.
        container: where the interpreter is; without function and entrypoint, the image is run as it is.
    """

    runner_id: str
    app_name: str
    environment: str
    revision_id: str
    machine_type: str
    python: Path
    function: Payload | None
    function_path: Path | None
    entrypoint: str | None
    setup: Payload | None
    setup_path: Path | None
    run_on_main_thread: bool
    serves_http: bool
    serves_metrics: bool
    files: tuple[tuple[AppFile, Path], ...]
    variables: Mapping[str, str] = field(repr=False)
    redact: tuple[str, ...] = field(repr=False, default=())
    startup_timeout_seconds: int
    termination_grace_seconds: int
    attempt_token: str = field(repr=False)
    app_port: int | None = None
    app_metrics_port: int | None = None
    container: Container | None = None


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
    process: Process
    exited: bool = False


class HealthProber(Protocol):
    """Asks runners whether they are well."""

    async def probe(self, host: str, port: int, check: HealthCheck) -> str | None:
        """Make one check; None where it was answered with 2xx in time, else what is wrong, in words."""
        ...


class Engine(Protocol):
    """Where runners run. One task drives `observations()`; all else may be called from anywhere in the loop."""

    def nodes(self) -> Sequence[Node]:
        """The machines that there are, with all that they have."""
        ...

    async def start(self, launch: Launch) -> tuple[str, Process]:
        """Start a runner; returns (node, its process) once the shim has taken the order, long before it is ready.

        Raises:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a function returned or raised, still serialised."""

    method: str
    definition: bytes
    raised: bool = False
    traceback: str | None = None
    exception_type: str | None = None
    exception_message: str | None = None
