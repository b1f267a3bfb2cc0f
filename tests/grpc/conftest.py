"""A real gRPC server on a free loopback port. The store is real, and most services are fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest

from fal_server.access.acting import Teams
from fal_server.access.audit import Recorder
from fal_server.access.authentication import Authenticator
from fal_server.access.tokens import Tokens
from fal_server.core.accounts import EachAccount, KnownAccounts
from fal_server.core.apps import App, AuthMode, Strategy
from fal_server.core.deploy_changes import Change
from fal_server.core.faults import Fault, InvalidArgument, NotFound, Unavailable
from fal_server.core.identity import LOCAL, Scope
from fal_server.core.logs import LogEntry, LogLevel, LogSource
from fal_server.core.machines import MachineTypes, Node, Resources
from fal_server.core.names import app_name, environment_name, identifier
from fal_server.core.outbound import Receipt
from fal_server.core.runners import Runner, RunnerState
from fal_server.core.scaling import Scaling
from fal_server.grpc.methods import Services
from fal_server.grpc.server import GrpcServer
from fal_server.live.backlog import Backlog
from fal_server.live.catalog import Catalog
from fal_server.live.ended_requests import EndedRequests
from fal_server.live.events import ChangeNotifier
from fal_server.live.feed import Changes
from fal_server.live.runner_view import RunnerView
from fal_server.live.unsent_lines import UnsentLines
from fal_server.ports import ExecOutput, ExecRequest, TerminalSize
from fal_server.services.account_quotas import AccountQuotas
from fal_server.services.accounts import Accounts
from fal_server.services.audit import Audit
from fal_server.services.deploy_plans import DeployPlan
from fal_server.services.drains import Drains
from fal_server.services.environments import Environments
from fal_server.services.keys import Keys
from fal_server.services.log_bounds import LogBounds
from fal_server.services.logs import Logs
from fal_server.services.nodes import Nodes
from fal_server.services.notices import Notices
from fal_server.services.request_recording import RequestRecording
from fal_server.services.requests import Requests
from fal_server.services.runners import RunnerPage
from fal_server.services.secrets import Secrets
from fal_server.services.views import (
    AppView,
    Built,
    CodeRequest,
    Deployed,
    DeployRequest,
    RevisionView,
    RunEnded,
    RunStarted,
    Urls,
)
from fal_server.store import AesVault, SqlStore, open_store
from tests.fakes.domain import make_runner
from tests.fakes.explain import FakeExplainer
from tests.support.schema import schema  # noqa: F401  (a fixture of every test here)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
URLS = Urls(playground="http://h/p", run="http://h/r", queue="http://h/q", ws="ws://h", log="http://h/l")


class ManualClock:
    """The Clock port, moved by hand."""

    def __init__(self) -> None:
        self.at = NOON

    def now(self) -> datetime:
        return self.at

    def wall(self) -> datetime:
        return self.now()

    def advance(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


def line(runner_id: str, sequence: int, message: str = "", **changes: Any) -> LogEntry:
    entry = LogEntry(
        account=LOCAL,
        runner_id=runner_id,
        sequence=sequence,
        timestamp=NOON + timedelta(milliseconds=sequence),
        level=LogLevel.INFO,
        source=LogSource.STDOUT,
        message=message or f"line {sequence}",
        app_name="hello",
        revision_id="rev-1",
    )
    return replace(entry, **changes)


def runner(runner_id: str = "runner-1", **changes: Any) -> Runner:
    built = Runner(
        account=LOCAL,
        runner_id=runner_id,
        app_name="hello",
        environment="main",
        revision_id="rev-1",
        machine_type="XS",
        token="word",
        created_at=NOON,
        state=RunnerState.IDLE,
    )
    return replace(built, **changes)


def refuse_version(version: str) -> None:
    if version not in {"", "v1"}:
        raise InvalidArgument("version", "this controller did not make that version")


class FakeApps:
    """Apps in a dictionary."""

    def __init__(self) -> None:
        self.apps: dict[str, App] = {}
        self.calls: list[tuple[object, ...]] = []
        self.fault: BaseException | None = None

    def add(self, name: str = "hello", **changes: Any) -> App:
        app = App(
            account=LOCAL,
            name=name,
            environment="main",
            revision_id="rev-1",
            auth_mode=AuthMode.PRIVATE,
            scaling=Scaling(),
            created_at=NOON,
            updated_at=NOON,
        )
        self.apps[name] = replace(app, **changes)
        return self.apps[name]

    async def list(self, scope: Scope, environment: str | None) -> Sequence[AppView]:
        if self.fault is not None:
            raise self.fault
        wanted = environment_name(environment or "main")
        return [_view(app) for app in self.apps.values() if app.environment == wanted]

    async def watch(self, scope: Scope, environment: str, version: str) -> AsyncIterator[Changes[AppView]]:
        refuse_version(version)
        yield Changes(snapshot=True, rows=await self.list(scope, environment), removed=[], version="v1")

    async def set_revision(
        self,
        scope: Scope,
        name: str,
        environment: str,
        revision_id: str,
        *,
        auth_mode: AuthMode | None,
        strategy: Strategy | None,
    ) -> AppView:
        self.calls.append((name, environment, revision_id, auth_mode, strategy))
        app = self._require(name, environment)
        identifier(revision_id, "revision")
        self.apps[app.name] = replace(app, revision_id=revision_id, auth_mode=auth_mode or app.auth_mode)
        return _view(self.apps[app.name])

    async def update(
        self, scope: Scope, name: str, environment: str, changes: Mapping[str, int | tuple[str, ...]]
    ) -> AppView:
        self.calls.append((name, environment, dict(changes)))
        app = self._require(name, environment)
        self.apps[app.name] = replace(app, scaling=replace(app.scaling, **changes))
        return _view(self.apps[app.name])

    async def rollout(self, scope: Scope, name: str, environment: str, *, force: bool) -> None:
        self.calls.append((name, environment, force))
        self._require(name, environment)

    async def delete(self, scope: Scope, name: str, environment: str) -> App:
        return self.apps.pop(self._require(name, environment).name)

    def _require(self, name: str, environment: str) -> App:
        full = app_name(name, environment_name(environment))
        if full not in self.apps:
            raise NotFound(f"app {full!r}")
        return self.apps[full]


def _view(app: App) -> AppView:
    return AppView(app=app, active_runners=1, is_rolling=app.next_revision_id is not None)


class FakeRevisions:
    """Revisions that a test puts here."""

    def __init__(self) -> None:
        self.views: list[RevisionView] = []

    async def list(self, scope: Scope, app_name: str | None, environment: str | None) -> Sequence[RevisionView]:
        return [v for v in self.views if app_name in (None, v.revision.app_name)]

    async def delete(self, scope: Scope, revision_id: str) -> None:
        identifier(revision_id, "application_id")
        raise NotFound(f"revision {revision_id!r}")


@dataclass
class Script:
    """Deploys and Runs that yield given steps and record requests."""

    steps: list[Any] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)
    closed: int = 0

    async def _play(self, request: object) -> AsyncIterator[Any]:
        self.asked.append(request)
        try:
            for step in self.steps:
                if isinstance(step, Fault):
                    raise step
                if callable(step):
                    waited: Any = step()
                    await waited
                else:
                    yield step
        finally:
            self.closed += 1

    def build(self, scope: Scope, code: CodeRequest) -> AsyncIterator[LogEntry | Built]:
        return self._play(code)

    def deploy(self, scope: Scope, request: DeployRequest) -> AsyncIterator[LogEntry | Deployed]:
        return self._play(request)

    def run(self, scope: Scope, code: CodeRequest) -> AsyncIterator[LogEntry | RunStarted | RunEnded]:
        return self._play(code)


class FakePlans:
    """Plans with fixed values."""

    def __init__(self) -> None:
        self.asked: list[DeployRequest] = []

    async def plan(self, scope: Scope, request: DeployRequest) -> DeployPlan:
        self.asked.append(request)
        return DeployPlan(
            app_name=request.code.application_name,
            revision_id="rev-0",
            changes=(Change(name="keep_alive", current="60", planned="90"),),
            env_id="env",
            environment_built=True,
            steps=("move the app at once",),
            problems=("no machine can run it",),
            kept="a keeps max_concurrency 4",
        )


class FakeRunners:
    """Runners in a dictionary; entering one returns the test's session."""

    def __init__(self) -> None:
        self.views: dict[str, RunnerView] = {}
        self.calls: list[tuple[object, ...]] = []
        self.session: Any = None

    def add(self, runner: Runner, **facts: Any) -> None:
        view = RunnerView(
            runner=runner, state=runner.state, in_flight=0, expires_in_seconds=None, uptime_seconds=0.0, leases=()
        )
        self.views[runner.runner_id] = replace(view, **facts)

    async def list(self, scope: Scope, *, since: datetime | None, include_pending: bool) -> Sequence[RunnerView]:
        self.calls.append((since, include_pending))
        return list(self.views.values())

    async def _of_app(
        self, scope: Scope, name: str, environment: str, *, since: datetime | None, include_pending: bool
    ) -> Sequence[RunnerView]:
        full = app_name(name, environment_name(environment), "alias")
        self.calls.append((full, since, include_pending))
        found = [v for v in self.views.values() if v.runner.app_name == full]
        if not found:
            raise NotFound(f"app {full!r}")
        return found

    async def page(
        self,
        scope: Scope,
        name: str | None,
        environment: str,
        *,
        since: datetime | None,
        include_pending: bool,
        size: int,
        token: str,
    ) -> RunnerPage:
        """Return the page that a token names. Without a token, it is the first one."""
        if name is None:
            found = list(await self.list(scope, since=since, include_pending=include_pending))
        else:
            found = list(await self._of_app(scope, name, environment, since=since, include_pending=include_pending))
        here = int(token or 0)
        return RunnerPage(
            views=found[here : here + size], next_token=str(here + size) if here + size < len(found) else ""
        )

    async def watch(
        self, scope: Scope, name: str, environment: str, *, since: datetime | None, version: str
    ) -> AsyncIterator[Changes[RunnerView]]:
        refuse_version(version)
        if name:
            await self._of_app(scope, name, environment, since=since, include_pending=True)
        yield Changes(snapshot=True, rows=list(self.views.values()), removed=[], version="v1")

    async def get(self, scope: Scope, runner_id: str) -> RunnerView:
        return self._require(runner_id)

    async def stop(
        self, scope: Scope, runner_id: str, *, replace_first: bool, grace_seconds: int | None = None
    ) -> None:
        self.calls.append((runner_id, replace_first, grace_seconds))
        self._require(runner_id)

    async def kill(self, scope: Scope, runner_id: str) -> None:
        self._require(runner_id)

    async def exec(self, scope: Scope, runner_id: str, request: ExecRequest) -> Any:
        self._require(runner_id)
        self.calls.append((runner_id, request))
        return self.session

    def _require(self, runner_id: str) -> RunnerView:
        identifier(runner_id, "runner_id")
        if runner_id not in self.views:
            raise NotFound(f"runner {runner_id!r}")
        return self.views[runner_id]


class FakeExecs:
    """Execs without commands, which cannot start any."""

    def __init__(self, runners: FakeRunners) -> None:
        self._runners = runners

    async def enter(self, scope: Scope, runner_id: str) -> Any:
        await self._runners.get(scope, runner_id)
        raise Unavailable(f"runner {runner_id} cannot be reached")

    async def line(self, scope: Scope, runner_id: str) -> Any:
        return await self.enter(scope, runner_id)

    async def everywhere(self, scope: Scope, ask: Any) -> Sequence[Any]:
        return []


class FakeSession:
    """A command that echoes its input in upper case. It exits at the end of its input or at `exit N`."""

    def __init__(self, *, tty: bool = False) -> None:
        self.written: list[bytes] = []
        self.sizes: list[tuple[int, int]] = []
        self.eof = asyncio.Event()
        self.closed = asyncio.Event()
        self.broken = False
        self.outputs: asyncio.Queue[ExecOutput | None] = asyncio.Queue()

    async def write(self, data: bytes) -> None:
        self.written.append(data)
        if data.startswith(b"exit "):
            await self.outputs.put(ExecOutput(exit_code=int(data[5:])))
        else:
            await self.outputs.put(ExecOutput(data=data.upper()))

    async def resize(self, size: TerminalSize) -> None:
        self.sizes.append((size.height, size.width))

    async def send_eof(self) -> None:
        self.eof.set()
        await self.outputs.put(ExecOutput(data=b"bye", stream=2))
        await self.outputs.put(ExecOutput(exit_code=0))

    async def output(self) -> AsyncIterator[ExecOutput]:
        while (part := await self.outputs.get()) is not None:
            yield part
            if part.exit_code is not None:
                return

    async def close(self) -> None:
        self.closed.set()


@dataclass
class Stack:
    """A running server, everything behind it, and a channel to it."""

    store: SqlStore
    clock: ManualClock
    access: Authenticator
    keys: Keys
    secrets: Secrets
    environments: Environments
    logs: Logs
    apps: FakeApps
    revisions: FakeRevisions
    deploys: Script
    runs: Script
    runners: FakeRunners
    server: GrpcServer
    port: int
    admin: tuple[str, str]
    api: tuple[str, str]
    channel: grpc.aio.Channel
    services: Services

    line = staticmethod(line)
    runner = staticmethod(runner)
    session = FakeSession

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return metadata(self.admin)


def metadata(key: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return (("auth-key-id", key[0]), ("auth-key", key[1]))


GPU_NODE = Node(
    name="here",
    total=Resources(milli_cpus=4000, memory_mib=2048, gpus={"GPU-A": 2}),
    bounds={"memory": "cgroup v2"},
)
HOLDER = make_runner("r-1", state=RunnerState.IDLE, machine_type="GPU-A", gpus=("GPU-A/0",), app_name="shop")


class RemovalInOneStep:
    """Deletes accounts that have no data."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def delete(self, nickname: str) -> bool:
        await self._accounts.end(nickname)
        return True


class NobodyCalled:
    """An OutboundClient and a MailClient that reach nobody."""

    async def post(self, call: object) -> Receipt:
        raise OSError("nobody is there")

    async def send(self, mailbox: object, message: object) -> None:
        raise OSError("nobody is there")

    async def why_forbidden(self, host: str, port: int) -> str:
        return ""


class NoFiles:
    """An empty /data."""

    async def used(self) -> int:
        return 0


@pytest.fixture
async def stack(request: pytest.FixtureRequest) -> AsyncIterator[Stack]:
    vault = AesVault(bytes(32))
    store = await open_store(getattr(request, "param", None), vault)
    clock = ManualClock()
    access = Authenticator(store, clock)
    keys = Keys(store, clock, access)
    environments = Environments(store, clock)
    await environments.bootstrap(LOCAL)
    secrets = Secrets(store, vault, clock)
    logs = Logs(store.logs, store, clock)
    apps, revisions, deploys, runs, runners = FakeApps(), FakeRevisions(), Script(), Script(), FakeRunners()
    # Fakes have only the methods that handlers call.
    fakes: dict[str, Any] = {
        "apps": apps,
        "explainer": FakeExplainer(),
        "revisions": revisions,
        "deploys": deploys,
        "deploy_plans": FakePlans(),
        "runs": runs,
        "runners": runners,
        "execs": FakeExecs(runners),
        "nodes": Nodes(cast("Any", SimpleNamespace(runners=[HOLDER])), lambda: [GPU_NODE], MachineTypes()),
    }
    known = KnownAccounts(await store.accounts.all())
    tokens = Tokens(bytes(32), store, clock, lambda _: None)
    teams = Teams(store.accounts, known, tokens, access)
    catalog = Catalog(store, clock, ChangeNotifier())
    recording = RequestRecording(EndedRequests(), store.requests, catalog, clock)
    recorder = Recorder(store.audit, clock, bytes(32))
    accounts, bounds = Accounts(store.accounts, known, teams, keys, clock), LogBounds(known.quotas, clock)
    no_runners, no_data = cast("Any", SimpleNamespace(runners=[])), EachAccount(lambda _: cast("Any", NoFiles()))
    services = Services(
        authenticator=access,
        teams=teams,
        tokens=tokens,
        recorder=recorder,
        audit=Audit(store.audit, recorder),
        drains=Drains(store.drains, UnsentLines(), vault, clock),
        notices=Notices(store.notices, vault, NobodyCalled(), NobodyCalled(), known, clock),
        accounts=accounts,
        removal=cast("Any", RemovalInOneStep(accounts)),
        quotas=AccountQuotas(store.accounts, known, accounts, Backlog(clock), no_runners, bounds, no_data),
        keys=keys,
        secrets=secrets,
        environments=environments,
        logs=logs,
        requests=Requests(store.requests, recording, catalog, clock),
        **fakes,
    )
    server = GrpcServer(services)
    port = await server.start(port=0)
    admin = await keys.bootstrap()
    assert admin is not None
    api = await keys.create(None, preset="API")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Stack(
            store=store,
            clock=clock,
            access=access,
            keys=keys,
            secrets=secrets,
            environments=environments,
            logs=logs,
            apps=apps,
            revisions=revisions,
            deploys=deploys,
            runs=runs,
            runners=runners,
            server=server,
            port=port,
            admin=admin,
            api=api,
            channel=channel,
            services=services,
        )
    await server.stop()
    await store.close()


@pytest.fixture
def runner_() -> Runner:
    return runner()
