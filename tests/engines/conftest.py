"""The local engine with a log store in memory. Apps are cloudpickled callables."""

from __future__ import annotations

import asyncio
import hashlib
import os
import pickle
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from fal_runner.isolation.levels import Isolation
from fal_runner.process.proc import process_info, processes_of, tag_of
from fal_runner.shim.address import ShimIdentity
from fal_server.core.containers import Container
from fal_server.core.faults import NotFound
from fal_server.core.identity import LOCAL, AccountId
from fal_server.core.lifecycle import Event, Observation
from fal_server.core.logs import LogEntry, LogSource
from fal_server.core.machines import MachineTypes, Node, Resources, RunnerLimits
from fal_server.core.revisions import AppFile, EnvironmentSpec, Payload
from fal_server.core.runners import Runner
from fal_server.engines.local import LocalHost
from fal_server.engines.local.cgroup import RunnerGroups
from fal_server.engines.local.prepared import PreparedLaunch, Preparer
from fal_server.engines.local.sandboxes import Sandboxes
from fal_server.engines.shim.engine import ShimEngine
from fal_server.ports import BuildLog, BuiltEnvironment, ExecOutput, ExecRequest, LaunchSpec
from tests.support.controller import ROOT

NODE = Node(name="here", total=Resources(milli_cpus=2000, memory_mib=4096, gpus={}))


class Lines:
    """A log store in memory. It also remembers how often each line came."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, int], LogEntry] = {}
        self.arrivals: list[tuple[str, int]] = []
        self.changed = asyncio.Condition()

    async def append(self, entries: Sequence[LogEntry]) -> None:
        async with self.changed:
            for entry in entries:
                self.arrivals.append((entry.runner_id, entry.sequence))
                self.entries.setdefault((entry.runner_id, entry.sequence), entry)
            self.changed.notify_all()

    async def last_sequence(self, runner_id: str) -> int:
        return max((sequence for owner, sequence in self.entries if owner == runner_id), default=0)

    def of(self, runner_id: str) -> list[LogEntry]:
        return [entry for (owner, _), entry in sorted(self.entries.items()) if owner == runner_id]

    def app_lines(self, runner_id: str) -> list[str]:
        return [entry.message for entry in self.of(runner_id) if entry.source is not LogSource.SYSTEM]

    async def until(self, runner_id: str, text: str) -> LogEntry:
        """Wait for a line with this text."""
        async with asyncio.timeout(30), self.changed:
            while True:
                for entry in self.of(runner_id):
                    if text in entry.message:
                        return entry
                await self.changed.wait()


class Built:
    """The Builder port, with existing environments, and this Python for all others."""

    def __init__(self) -> None:
        self._built: dict[str, BuiltEnvironment] = {}

    def add(self, python: Path, container: Container | None = None) -> EnvironmentSpec:
        kind = "virtualenv" if container is None else "container"
        spec = EnvironmentSpec(kind=kind, configuration={"number": len(self._built)})
        self._built[spec.env_id] = BuiltEnvironment(env_id=spec.env_id, python=python, container=container)
        return spec

    async def build(self, spec: EnvironmentSpec, *, force: bool, log: BuildLog) -> BuiltEnvironment:
        here = BuiltEnvironment(env_id=spec.env_id, python=Path(sys.executable))
        return self._built.setdefault(spec.env_id, here)

    def find(self, spec: EnvironmentSpec) -> BuiltEnvironment | None:
        return self._built.get(spec.env_id)

    async def present(self, spec: EnvironmentSpec) -> BuiltEnvironment | None:
        return self.find(spec)


class Content:
    """Bytes by their hash, in a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(exist_ok=True)

    def add(self, content: bytes) -> str:
        name = hashlib.sha256(content).hexdigest()
        (self._root / name).write_bytes(content)
        return name

    async def put(self, content: bytes) -> str:
        return self.add(content)

    def path(self, blob: str) -> Path:
        path = self._root / blob
        if not path.exists():
            raise NotFound(f"blob {blob}")
        return path

    def discard(self, blobs: Collection[str], before: datetime) -> None:
        raise AssertionError("engines discard nothing")


class Uploaded:
    """The uploaded files of apps, among other content."""

    def __init__(self, content: Content) -> None:
        self._content = content

    def path(self, account: AccountId, file_hash: str) -> Path:
        return self._content.path(file_hash)


class Rig:
    """The engine under test. `restart` ends its controller and starts the next one."""

    def __init__(self, root: Path, sandboxes: Sandboxes | None = None) -> None:
        self.root = root
        # This Python can import this checkout, which an app's environment cannot.
        for name in ("data", "home"):
            (root / name).mkdir(exist_ok=True)
        self.sandboxes = sandboxes or Sandboxes(
            isolation=Isolation.PROCESS, home=root / "home", data=lambda _: root / "data", readable=[ROOT]
        )
        self.lines = Lines()
        self.built = Built()
        self.content = Content(root / "blobs")
        self.seen: dict[str, list[Observation]] = {}
        self.changed = asyncio.Condition()
        self.launches: dict[str, LaunchSpec] = {}
        self._shims: dict[str, ShimIdentity] = {}
        self.engine = self._open()

    def _open(
        self,
        warm_shims: int = 0,
        warm_workers: int = 0,
        silent_seconds: float = 30,
        groups: RunnerGroups | None = None,
        node: Node = NODE,
    ) -> ShimEngine:
        self.host = host = LocalHost(
            self.root / "runners",
            node=node,
            builder=self.built,
            blobs=self.content,
            files=Uploaded(self.content),
            sandboxes=self.sandboxes,
            warm_shims=warm_shims,
            warm_workers=warm_workers,
            rest_seconds=0.0,
            groups=groups,
        )
        engine = ShimEngine(
            lambda: [host],
            sink=self.lines.append,
            last_sequence=self.lines.last_sequence,
            silent_seconds=silent_seconds,
        )
        self._watch = asyncio.get_running_loop().create_task(self._observe(engine))
        return engine

    async def _observe(self, engine: ShimEngine) -> None:
        async for seen in engine.observations():
            async with self.changed:
                self.seen.setdefault(seen.runner_id, []).append(seen)
                self.changed.notify_all()

    def launch(
        self,
        function: Callable[..., Any] | None,
        *,
        http: bool = False,
        metrics: bool = False,
        setup: Callable[[], Any] | None = None,
        entrypoint: str | None = None,
        files: dict[str, bytes] | None = None,
        variables: dict[str, str] | None = None,
        redact: tuple[str, ...] = (),
        app_port: int | None = None,
        python: Path | None = None,
        container: Container | None = None,
        limits: RunnerLimits | None = None,
    ) -> LaunchSpec:
        def pickled(what: Callable[..., Any] | None) -> Payload | None:
            if what is None:
                return None
            module = sys.modules[what.__module__]
            cloudpickle.register_pickle_by_value(module)  # as an app's own file is
            try:
                return Payload(method="cloudpickle", blob=self.content.add(cloudpickle.dumps(what)))
            finally:
                cloudpickle.unregister_pickle_by_value(module)

        given = (files or {}).items()
        return LaunchSpec(
            account=LOCAL,
            runner_id=secrets.token_hex(16),
            node=NODE.name,
            app_name="shop",
            environment="main",
            revision_id="revision-1",
            limits=limits or MachineTypes().limits_of("XS"),
            packages=self.built.add(python or Path(sys.executable), container),
            function=pickled(function),
            entrypoint=entrypoint,
            setup=pickled(setup),
            files=tuple(AppFile(hash=self.content.add(content), relative_path=name) for name, content in given),
            serves_http=http,
            serves_metrics=metrics,
            app_port=app_port,
            variables=variables or {},
            redact=redact,
            termination_grace_seconds=5,
            token=secrets.token_urlsafe(24),
        )

    async def prepared(self, launch: LaunchSpec) -> PreparedLaunch:
        return await Preparer(self.built, self.content, Uploaded(self.content)).prepare(launch, None)

    async def start(self, function: Callable[..., Any] | None, **options: Any) -> Runner:
        return await self.start_launch(self.launch(function, **options))

    async def start_launch(self, launch: LaunchSpec) -> Runner:
        self.launches[launch.runner_id] = launch
        node, handle = await self.engine.start(launch)
        shim = ShimIdentity.read(self.root / "runners" / launch.runner_id)
        assert shim is not None
        self._shims[launch.runner_id] = shim
        return Runner(
            account=LOCAL,
            runner_id=launch.runner_id,
            app_name=launch.app_name,
            environment=launch.environment,
            revision_id=launch.revision_id,
            machine_type=launch.limits.machine_type,
            token=launch.token,
            created_at=datetime.now(UTC),
            node=node,
            handle=handle,
        )

    async def until(self, runner: Runner, event: Event) -> Observation:
        try:
            async with asyncio.timeout(30), self.changed:
                while True:
                    for seen in self.seen.get(runner.runner_id, []):
                        if seen.event is event:
                            return seen
                    await self.changed.wait()
        except TimeoutError:
            said = "\n".join(entry.message for entry in self.lines.of(runner.runner_id))
            raise AssertionError(f"no {event} of the runner; it said:\n{said}") from None

    async def restart(self, *, adopt: Runner | None = None, **options: Any) -> bool:
        await self.shut()
        self.seen.clear()
        self.engine = self._open(**options)
        return adopt is not None and await self.engine.adopt(adopt) is not None

    async def shut(self) -> None:
        """End the controller."""
        await self.engine.close()
        await self._watch

    async def worker_ended(self, pid: int) -> None:
        """Wait for the end of a process that is not a child."""
        handle = os.pidfd_open(pid)
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(handle, ended.set)
        async with asyncio.timeout(30):
            await ended.wait()
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)

    def shim(self, runner: Runner) -> ShimIdentity:
        """Return the content of the runner's shim.json."""
        return self._shims[runner.runner_id]

    def alive(self, runner: Runner) -> list[int]:
        """Return the living processes of a runner, without its shim."""
        shim = self.shim(runner).pid
        return [seen.pid for seen in processes_of(tag_of(runner.token)) if seen.pid != shim]

    def programs(self, runner: Runner) -> list[int]:
        """Return the living processes of a runner, without those of its sandbox."""
        found = {pid: _command_line(pid) for pid in self.alive(runner)}
        return [pid for pid, line in found.items() if line and not any(p.endswith(b"/process/launch.py") for p in line)]

    async def run(self, runner: Runner, *command: str, stdin: bytes | None = None, **options: Any) -> Ran:
        """Run a command to its end."""
        session = await self.engine.exec(runner, ExecRequest(command=command, tty=False, **options))
        if stdin is not None:
            await session.write(stdin)
        await session.send_eof()
        ran = Ran()
        async with asyncio.timeout(30):
            async for output in session.output():
                ran.take(output)
        return ran

    async def close(self) -> None:
        for runner_id in self.launches:
            await self.engine.release(runner_id)
        await self.engine.close()
        await self._watch


def program_of(pid: int) -> int:
    """Return the program in a sandbox that a process stands for. Otherwise return the process itself."""
    children = (process_info(child) for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    return next((child.pid for child in children if child is not None and child.session == child.pid), pid)


class Ran:
    """The output and the exit code of a command."""

    def __init__(self) -> None:
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.code: int | None = None

    def take(self, output: ExecOutput) -> None:
        if output.exit_code is not None:
            self.code = output.exit_code
        elif output.stream == 2:
            self.stderr += output.data
        else:
            self.stdout += output.data


class Environment:
    """A virtual environment with the tests' packages, and modules of a test."""

    def __init__(self, root: Path) -> None:
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        self.python = root / "bin" / "python"
        self.packages = root / "lib" / version / "site-packages"
        self.packages.mkdir(parents=True)
        self.python.parent.mkdir()
        self.python.symlink_to(Path(sys.executable).resolve())
        (root / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
        ours = next(path for path in sys.path if path.endswith("site-packages"))
        (self.packages / "ours.pth").write_text(ours + "\n")

    def add(self, name: str, code: str) -> None:
        (self.packages / f"{name}.py").write_text(code)


class Warm:
    """An engine that keeps a warm worker for recently used environments."""

    def __init__(self, rig: Rig, environment: Environment) -> None:
        self.rig = rig
        self.environment = environment
        self.used = 0

    def launch(self, function: Any, *, environment: Environment | None = None, **options: Any) -> LaunchSpec:
        python = (environment or self.environment).python
        variables = {"FAL_DATA_DIR": str(self.rig.root / "data"), **options.pop("variables", {})}
        return self.rig.launch(function, python=python, variables=variables, **options)

    def another_environment(self) -> Environment:
        return Environment(self.rig.root / "another environment")

    async def run(self, function: Any, **options: Any) -> Any:
        """Run a function in a new runner; return its value."""
        runner = await self.rig.start_launch(self.launch(function, **options))
        result = await self.rig.engine.result(runner)
        await self.rig.until(runner, Event.GONE)
        self.used = await self.process_of(runner)
        assert not result.raised, result.traceback
        return pickle.loads(result.definition)

    async def process_of(self, runner: Runner) -> int:
        """Return the shim's child that was a runner's worker."""
        started = await self.rig.lines.until(runner.runner_id, "worker started: process ")
        return int(started.message.rpartition(" ")[2])

    async def worker(self, *others: int) -> int:
        """Wait for a warm worker that is not one of these."""
        async with asyncio.timeout(60):
            while True:
                self.rig.host.warm_pool.warmed.clear()
                for pid in self.rig.host.warm_pool.workers:
                    if pid not in others:
                        return pid
                await self.rig.host.warm_pool.warmed.wait()

    def said(self, runner_id: str) -> list[str]:
        return [entry.message for entry in self.rig.lines.of(runner_id) if entry.source is LogSource.SYSTEM]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    await rig.close()


@pytest.fixture
async def warm(rig: Rig) -> Warm:
    await rig.restart(warm_workers=1)
    return Warm(rig, Environment(rig.root / "environment"))


def _command_line(pid: int) -> list[bytes]:
    """Return a process's command line; nothing if it has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return []
