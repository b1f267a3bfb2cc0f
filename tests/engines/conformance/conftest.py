"""The engines of the conformance suite. A new engine is one more class, named in the fixture."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import cloudpickle
import pytest

from fal_server.core.containers import CONTAINER
from fal_server.core.identity import LOCAL
from fal_server.core.lifecycle import Event, Observation
from fal_server.core.machines import MachineTypes
from fal_server.core.revisions import EnvironmentSpec, Payload
from fal_server.core.runners import Runner
from fal_server.engines.local import LocalHost
from fal_server.engines.remote.authority import NodeAuthority, make_authority
from fal_server.engines.remote.epoch import Epoch
from fal_server.engines.remote.host import RemoteHost
from fal_server.engines.shim.engine import ShimEngine
from fal_server.ports import Engine, LaunchSpec
from tests.engines.conftest import NODE, Built, Content, Lines, Uploaded
from tests.fakes.engine import FakeEngine, Start
from tests.fakes.platform import FakeBuilder
from tests.support.node import TestNode, now
from tests.support.relay import Relay


def serve(exposed_port: int) -> None:
    import http.server

    http.server.HTTPServer(("127.0.0.1", exposed_port), http.server.BaseHTTPRequestHandler).serve_forever()


def end() -> None:
    raise SystemExit(3)


class EngineUnderTest(ABC):
    """An engine, its observations, and descriptions of its runners."""

    def __init__(self) -> None:
        self.started: list[Runner] = []
        self.reports: dict[str, list[Observation]] = {}
        self._changed = asyncio.Condition()
        self.engine = self.open()
        self._watch = asyncio.create_task(self._observe(self.engine))

    @abstractmethod
    def open(self) -> Engine:
        """Open the engine of a new controller on the same machine."""

    @abstractmethod
    def code(self, *, ends: bool) -> Payload:
        """Return a function that serves HTTP, or one that exits at once. The exit code is 3."""

    @abstractmethod
    def packages(self) -> EnvironmentSpec:
        """Return the environment of an app."""

    def spec(self, *, ends: bool = False, packages: EnvironmentSpec | None = None) -> LaunchSpec:
        return LaunchSpec(
            account=LOCAL,
            runner_id=secrets.token_hex(16),
            node=NODE.name,
            app_name="shop",
            environment="main",
            revision_id="revision-1",
            limits=MachineTypes().limits_of("XS"),
            packages=packages or self.packages(),
            function=self.code(ends=ends),
            serves_http=not ends,
            serves_metrics=False,
            variables={},
            termination_grace_seconds=5,
            token=secrets.token_urlsafe(24),
        )

    def runner(self, spec: LaunchSpec, node: str = "", handle: str = "") -> Runner:
        return Runner(
            account=spec.account,
            runner_id=spec.runner_id,
            app_name=spec.app_name,
            environment=spec.environment,
            revision_id=spec.revision_id,
            machine_type=spec.limits.machine_type,
            token=spec.token,
            created_at=datetime.now(UTC),
            node=node,
            handle=handle,
        )

    async def start(self, spec: LaunchSpec | None = None) -> Runner:
        spec = spec or self.spec()
        runner = self.runner(spec, *(await self.engine.start(spec)))
        self.started.append(runner)
        return runner

    async def until(self, runner: Runner, event: Event) -> Observation:
        async with asyncio.timeout(30), self._changed:
            while True:
                for report in self.reports.get(runner.runner_id, []):
                    if report.event is event:
                        return report
                await self._changed.wait()

    async def restart(self) -> None:
        """End the controller without its runners, and start the next one."""
        await self._shut()
        self.reports.clear()
        self.engine = self.open()
        self._watch = asyncio.create_task(self._observe(self.engine))

    async def close(self) -> None:
        await self.engine.release_strangers([])
        for runner in self.started:
            await self.engine.release(runner.runner_id)
        await self._shut()

    async def _shut(self) -> None:
        await self.engine.close()
        await self._watch

    async def _observe(self, engine: Engine) -> None:
        async for report in engine.observations():
            async with self._changed:
                self.reports.setdefault(report.runner_id, []).append(report)
                self._changed.notify_all()


class Local(EngineUnderTest):
    """ShimEngine on this machine: real shims and workers."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._built = Built()
        self._content = Content(root / "blobs")
        self._lines = Lines()
        super().__init__()

    def open(self) -> Engine:
        host = LocalHost(
            self._root / "runners",
            node=NODE,
            builder=self._built,
            blobs=self._content,
            files=Uploaded(self._content),
        )
        return ShimEngine(lambda: [host], sink=self._lines.append, last_sequence=self._lines.last_sequence)

    def code(self, *, ends: bool) -> Payload:
        module = sys.modules[__name__]
        cloudpickle.register_pickle_by_value(module)  # the worker cannot import it
        try:
            content = cloudpickle.dumps(end if ends else serve)
        finally:
            cloudpickle.unregister_pickle_by_value(module)
        return Payload(method="cloudpickle", blob=self._content.add(content))

    def packages(self) -> EnvironmentSpec:
        return self._built.add(Path(sys.executable))


class Remote(Local):
    """ShimEngine on another machine: real shims and workers behind a node's door."""

    def __init__(self, root: Path, *, silent: float = 5.0, lost: float = 60.0, network_host: str = "") -> None:
        (root / "away").mkdir()
        self.wanted: list[str] | None = None
        self._silent, self._lost, self._network_host = silent, lost, network_host
        self._authority = NodeAuthority(make_authority(now()), now)
        super().__init__(root)

    async def join(self) -> None:
        """Start the node, and have it join."""
        self.node = TestNode(self._root / "away", NODE, self._built, self._authority)
        await self.node.open()
        await self.node.join()
        self.way = Relay(self.node.port)
        await self.way.open()
        self._open_host()
        await self.host.heard.wait()

    def open(self) -> Engine:
        self._hosts: list[RemoteHost] = []
        return ShimEngine(lambda: self._hosts, sink=self._lines.append, last_sequence=self._lines.last_sequence)

    def spec(self, *, ends: bool = False, packages: EnvironmentSpec | None = None) -> LaunchSpec:
        return replace(super().spec(ends=ends, packages=packages), node=self.node.name)

    async def restart(self) -> None:
        await super().restart()
        self._open_host()
        await self.host.heard.wait()

    async def close(self) -> None:
        await super().close()
        await self.node.close()
        await self.way.close()

    def later(self, wanted: list[str]) -> RemoteHost:
        """Return the node as a controller of a later start reaches it. It is to be opened and closed."""
        epoch = Epoch(number=2, holder="two")
        return self.node.host(self._content, wanted=lambda: wanted, silent=5.0, lost=60.0, epoch=epoch)

    def _open_host(self) -> None:
        self.host = self.node.host(
            self._content,
            wanted=lambda: self.wanted,
            silent=self._silent,
            lost=self._lost,
            port=self.way.port,
            network_host=self._network_host,
        )
        self.host.open()
        self._hosts.append(self.host)


class Fake(EngineUnderTest):
    """The in-memory engine of other tests. It must behave like a real one."""

    def __init__(self) -> None:
        self._fake = FakeEngine()
        self._fake.builder = FakeBuilder()
        super().__init__()

    def open(self) -> Engine:
        self._fake = self._fake.restarted()
        return self._fake

    def code(self, *, ends: bool) -> Payload:
        self._fake.start_as = Start.ENDS if ends else Start.READY
        return Payload(method="cloudpickle", blob=hashlib.sha256(b"").hexdigest())

    def packages(self) -> EnvironmentSpec:
        return EnvironmentSpec(kind="virtualenv", configuration={})


IMAGE = EnvironmentSpec(kind=CONTAINER, configuration={"image": {"dockerfile_str": "FROM x"}})


@pytest.fixture(params=["fake", "local", "remote"])
async def under(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EngineUnderTest]:
    kinds = {"fake": Fake, "local": lambda: Local(tmp_path), "remote": lambda: Remote(tmp_path)}
    engine: EngineUnderTest = kinds[request.param]()
    if isinstance(engine, Remote):
        await engine.join()
    yield engine
    await engine.close()
