"""The controller without gRPC and HTTP. Store, services and loops are real. Engine, builder and clock are in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fal_server.core.addresses import RunnerAddress
from fal_server.core.apps import App
from fal_server.core.faults import FailedPrecondition, Fault, Unavailable
from fal_server.core.history import StateChange
from fal_server.core.identity import LOCAL, AccountId, AppId
from fal_server.core.logs import LogEntry, LogLevel, LogSource
from fal_server.core.machines import MachineTypes
from fal_server.core.quotas import USUAL
from fal_server.core.revisions import EnvironmentSpec, HealthCheck, Revision
from fal_server.core.runners import Runner
from fal_server.live.backlog import Backlog
from fal_server.live.catalog import Catalog
from fal_server.live.decisions import Decisions
from fal_server.live.dispatch import Dispatcher, Lease
from fal_server.live.events import ChangeNotifier
from fal_server.live.fleet import Fleet
from fal_server.live.health import Health
from fal_server.live.measurements import Measurements
from fal_server.loops.health import HealthLoop
from fal_server.loops.reconciler import Reconciler
from fal_server.ports import BuildLog, BuiltEnvironment, Store
from fal_server.services.adoption import Adoption
from fal_server.services.apps import Apps
from fal_server.services.deploy_plans import DeployPlans
from fal_server.services.deploys import Deploys
from fal_server.services.explain import Explainer
from fal_server.services.launch_spec import LaunchSpecs
from fal_server.services.logs import Logs
from fal_server.services.revisions import Revisions
from fal_server.services.runners import Runners
from fal_server.services.runs import Runs
from fal_server.services.secrets import Secrets
from fal_server.services.views import CodeRequest, Deployed, DeployRequest, Urls
from fal_server.store import AesVault, FileBlobs, SqlStore, open_store
from fal_server.store.files.app_files import AppFilesOfAccounts, DiskAppFiles, KeptAppFiles
from tests.fakes.domain import SCOPE, START, app_id
from tests.fakes.engine import FakeEngine

KEY = bytes(range(32))
OTHER = AccountId("other")
_ACCOUNTS = {"me": LOCAL, "you": OTHER}
HANG_SECONDS = 20.0
SPEC = EnvironmentSpec(kind="virtualenv", configuration={"requirements": []})


class FakeClock:
    """A Clock that the test moves."""

    def __init__(self, changed: ChangeNotifier) -> None:
        self.time = START
        self._changed = changed

    def now(self) -> datetime:
        return self.time

    def wall(self) -> datetime:
        return self.now()

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)
        self._changed.notify()


class FakeBuilder:
    """A Builder that logs two lines and builds nothing."""

    def __init__(self) -> None:
        self.fails = ""
        self.trouble: Fault | None = None
        self.hold: asyncio.Event | None = None  # if set, builds wait for it
        self.builds = 0
        self.at_once = 0
        self.most_at_once = 0
        self._built: set[str] = set()

    async def build(self, spec: EnvironmentSpec, *, force: bool, log: BuildLog) -> BuiltEnvironment:
        self.builds += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            for number, text in enumerate(("resolving", "installing"), 1):
                await log(
                    LogEntry(
                        account=LOCAL,
                        runner_id="",
                        sequence=number,
                        timestamp=START,
                        level=LogLevel.INFO,
                        source=LogSource.BUILD,
                        message=text,
                    )
                )
                await asyncio.sleep(0)
            if self.hold is not None:
                await self.hold.wait()
            if self.trouble is not None:
                raise self.trouble
            if self.fails:
                raise FailedPrecondition(self.fails)
            self._built.add(spec.env_id)
            return BuiltEnvironment(env_id=spec.env_id, python=Path("/python"))
        finally:
            self.at_once -= 1

    async def present(self, spec: EnvironmentSpec) -> BuiltEnvironment | None:
        return self.find(spec)

    def lose_everything(self) -> None:
        self._built.clear()

    def find(self, spec: EnvironmentSpec) -> BuiltEnvironment | None:
        return BuiltEnvironment(env_id=spec.env_id, python=Path("/python")) if spec.env_id in self._built else None


class FakeProber:
    """A HealthProber; the test sets which ports are unhealthy, and why.

    Attributes:
        unhealthy: what is wrong, by port; "*" means every port.
        asked: the probed ports, in order.
    """

    def __init__(self) -> None:
        self.unhealthy: dict[int | str, str] = {}
        self.asked: list[int] = []

    async def probe(self, address: RunnerAddress, check: HealthCheck) -> str | None:
        self.asked.append(address.port)
        await asyncio.sleep(0)
        return self.unhealthy.get(address.port) or self.unhealthy.get("*")


class FailingStore:
    """The real store, in which the test can make writes fail. The next writes of runners fail, as on a full disk."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self.failures_left = 0

    async def save_runners(self, runners: Sequence[Runner], changes: Sequence[StateChange] = ()) -> None:
        if self.failures_left:
            self.failures_left -= 1
            raise Unavailable("the disk is full")
        await self._store.save_runners(runners, changes)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


class Platform:
    """All services, wired as in the controller."""

    def __init__(self, store: SqlStore, directory: Path, engine: FakeEngine | None = None) -> None:
        self.changed = ChangeNotifier()
        self.clock = FakeClock(self.changed)
        self.faulty = FailingStore(store)
        shown: Store = self.faulty  # type: ignore[assignment]
        self.store = store
        self.quotas = USUAL
        self.engine = engine or FakeEngine()
        self.engine.changed = self.changed
        self.builder = FakeBuilder()
        self.engine.builder = self.engine.builder or self.builder
        self.blobs = FileBlobs(directory / "blobs")
        self.app_files_of: Callable[[AccountId], KeptAppFiles] = lambda account: DiskAppFiles(
            directory / "app-files" / account
        )
        self.catalog = Catalog(shown, self.clock, self.changed)
        self.health = Health(self.catalog)
        self.fleet = Fleet(shown, self.clock, self.changed, self.health)
        self.backlog = Backlog(self.clock)
        self.node_answers: Callable[[Runner], Awaitable[bool] | None] = lambda _: None
        self.dispatcher = Dispatcher(
            self.catalog,
            self.fleet,
            self.backlog,
            self.clock,
            self.changed,
            _ACCOUNTS,
            node_answers=lambda runner: self.node_answers(runner),
        )
        self.apps = Apps(self.catalog, self.fleet, self.dispatcher, self.clock, MachineTypes())
        self.decisions = Decisions(self.clock)
        self.explainer = Explainer(
            self.catalog, self.fleet, self.dispatcher, self.apps, self.decisions, self.engine.nodes
        )
        self.log_store = store.logs
        self.logs = Logs(self.log_store, shown, self.clock)
        self.fleet.subscribe(ended=self.logs.runner_ended)
        self.secrets = Secrets(shown, AesVault(KEY), self.clock)
        self.expected: list[str] = []
        self.deploys = Deploys(
            shown,
            self.catalog,
            self.apps,
            self.builder,
            self.blobs,
            self.clock,
            _urls,
            files=AppFilesOfAccounts(lambda account: self.app_files_of(account), lambda: _ACCOUNTS.values()),
            logs=self.logs,
            nodes=self.engine.nodes,
            expect=self._expect,
        )
        self.deploy_plans = DeployPlans(
            shown, self.catalog, self.fleet, self.dispatcher, self.deploys, self.builder, self.clock
        )
        self.runs = Runs(
            shown,
            self.catalog,
            self.fleet,
            self.deploys,
            self.engine,
            self.logs,
            self.clock,
            self.changed,
            _urls,
        )
        self.resources = Measurements(self.fleet)
        self.runners = Runners(self.catalog, self.fleet, self.dispatcher, self.engine, self.clock, self.resources)
        self.revisions = Revisions(shown, self.catalog, self.fleet)
        self.launch_specs = LaunchSpecs(self.catalog, self.secrets.reveal_for, lambda _: {}, MachineTypes())
        self.reconciler = Reconciler(
            self.catalog,
            self.fleet,
            self.dispatcher,
            self.launch_specs,
            self.engine,
            self.clock,
            self.changed,
            self.decisions,
            lambda _: self.quotas,
        )
        self.prober = FakeProber()
        self.health_loop = HealthLoop(self.health, self.catalog, self.fleet, self.prober, self.clock, self.changed)

    def adoption(self, hold: Callable[[Mapping[str, int | None]], None], *silent: str) -> Adoption:
        """Return what adopts the runners of an earlier controller.

        Args:
            silent: the nodes that do not say a word before the test ends.
        """

        async def first_word(node: str) -> None:
            if node in silent:
                await asyncio.Event().wait()

        return Adoption(self.fleet, self.engine, hold=hold, first_word=first_word)

    async def reattach(self, hold: Callable[[Mapping[str, int | None]], None] = lambda counts: None) -> None:
        """Adopt the runners of an earlier controller, before anything is routed."""
        await self.adoption(hold).begin([])

    async def until(self, true: Callable[[], object]) -> None:
        """Wait until a condition holds."""
        async with asyncio.timeout(HANG_SECONDS):
            seen = -1
            while not true():
                seen = await self.changed.wait(seen if seen >= 0 else self.changed.count)

    async def settled(self) -> None:
        """Wait until all that needs no passing of time is done."""
        quiet = 0
        while quiet < 5:
            seen = self.changed.count
            await self.reconciler.tick()
            await asyncio.sleep(0)
            quiet = quiet + 1 if self.changed.count == seen else 0

    def the_runner(self, app: str = "a") -> Runner:
        """Return the only living runner of an app."""
        [runner] = self.fleet.of_app(app_id(app))
        return runner

    def runner(self, runner_id: str) -> Runner:
        """Return a runner that has not ended."""
        found = self.fleet.get(runner_id)
        assert found is not None
        return found

    async def _expect(self, revision: Revision) -> None:
        self.expected.append(revision.revision_id)

    async def deploy(self, name: str = "a", **changes: Any) -> Deployed:
        """Deploy, and return the last message."""
        async with asyncio.timeout(HANG_SECONDS):
            *_, last = [event async for event in self.deploys.deploy(SCOPE, deploy_request(name, **changes))]
        assert isinstance(last, Deployed)
        return last

    def ask(self, app: str = "a", request_id: str = "q", start_timeout: float | None = None) -> asyncio.Task[Lease]:
        """Return a request that waits for a runner."""
        return asyncio.get_running_loop().create_task(
            self.dispatcher.acquire(
                app_id(app), request_id=request_id, caller=None, hint=None, start_timeout=start_timeout
            )
        )

    async def get(self, app: str = "a") -> Lease:
        async with asyncio.timeout(HANG_SECONDS):
            return await self.ask(app)

    def app(self, name: str = "a") -> App:
        return self.catalog.require(app_id(name))


def deploy_request(name: str = "a", **changes: Any) -> DeployRequest:
    deploy = {key: changes.pop(key) for key in list(changes) if key in DeployRequest.__dataclass_fields__}
    return DeployRequest(code=code_request(name, **changes), **deploy)


def code_request(name: str = "a", **changes: Any) -> CodeRequest:
    wanted: dict[str, Any] = {
        "environments": (SPEC,),
        "entrypoint": "module:app",
        "exposed_port": 8080,
        "application_name": name,
    }
    return CodeRequest(**(wanted | changes))


def _urls(app: AppId) -> Urls:
    return Urls(playground="", run=f"http://here/{app}", queue="", ws="", log="")


@asynccontextmanager
async def running(platform: Platform) -> AsyncGenerator[Platform, None]:
    """Run a platform with its loops."""
    works = (platform.reconciler.run(), platform.reconciler.watch(), platform.health_loop.run())
    loops = [asyncio.create_task(work) for work in works]
    try:
        yield platform
        assert not any(loop.done() for loop in loops), "a loop has ended"
    finally:
        platform.engine.hold_start.set()
        platform.reconciler.stop_starting()
        await platform.reconciler.close()
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await platform.dispatcher.close()


@asynccontextmanager
async def opened(directory: Path) -> AsyncGenerator[Platform, None]:
    """Open a platform on a database in memory, without loops."""
    store = await open_store(None, AesVault(KEY))
    try:
        yield Platform(store, directory)
    finally:
        await store.close()
