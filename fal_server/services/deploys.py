"""Builds environments and deploys revisions, streaming the build's log."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import fields, replace
from functools import partial
from typing import TypeVar

from fal_server.core import names
from fal_server.core.apps import App, AuthMode
from fal_server.core.deploy_changes import kept, lack_everywhere
from fal_server.core.faults import AlreadyExists, FailedPrecondition, Fault, InvalidArgument, NotFound, Unavailable
from fal_server.core.identity import EVERY_ACCOUNT, AccountId, AppId, Scope
from fal_server.core.logs import LogEntry, LogLevel, LogSource
from fal_server.core.machines import MachineTypes, Node
from fal_server.core.revisions import Payload, Revision
from fal_server.core.scaling import Scaling
from fal_server.live.catalog import Catalog, existing_environment
from fal_server.ports import Blobs, Builder, BuildLog, BuiltEnvironment, Clock, Store, UploadedFiles
from fal_server.services.apps import Apps
from fal_server.services.build_lines import BuildLines
from fal_server.services.logs import Logs
from fal_server.services.views import Built, CodeRequest, Deployed, DeployRequest, Registered, Urls

E = TypeVar("E")
T = TypeVar("T")
MAX_FUNCTION_BYTES = 64 * 1024 * 1024


class Deploys:
    """The use cases of builds and deploys.

    Args:
        urls: returns the URLs of an app.
        logs: shows an attached deploy its first runner's output, and stores builds' output; None does neither.
        files: the uploaded files of apps.
        nodes: returns the machines, to report early that none of them has the required resources.
        machine_types: the types that runners can have; None means the usual ones.
        expect: called with a revision whose first runner will start with its first request.
    """

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        apps: Apps,
        builder: Builder,
        blobs: Blobs,
        clock: Clock,
        urls: Callable[[AppId], Urls],
        *,
        files: UploadedFiles,
        logs: Logs | None = None,
        nodes: Callable[[], Sequence[Node]] = tuple,
        machine_types: MachineTypes | None = None,
        expect: Callable[[Revision], Awaitable[None]] | None = None,
    ) -> None:
        self._expect = expect
        self._machine_types = machine_types or MachineTypes()
        self._nodes = nodes
        self._store = store
        self._catalog = catalog
        self._apps = apps
        self._logs = logs
        self._build_lines = BuildLines(logs)
        self._builder = builder
        self._blobs = blobs
        self._files = files
        self._clock = clock
        self._urls = urls
        self._deploying: dict[AppId, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def build(self, scope: Scope, code: CodeRequest) -> AsyncGenerator[LogEntry | Built, None]:
        """Build an environment. Yield its log lines as they are written, then the result.

        Raises:
            InvalidArgument, Unimplemented, FailedPrecondition: see Builder.build.
            NotFound: there is no such environment; nothing was built, because it could not be deployed.
            FailedPrecondition: a secret that the code names is not set.
        """
        environment = await existing_environment(self._store, scope.account, code.environment_name)
        async with self._recording_failure(_app_of(scope.account, environment, code)):
            scaling = self.scaling_of(code.scaling)
            if missing := await self.missing_secrets(scope.account, code, environment):
                raise FailedPrecondition(missing)
            if lack := self.lack(code, scaling):
                yield self._said(LogLevel.WARNING, lack)
            async with aclosing(streamed(partial(self._built_for, scope.account, environment, code))) as events:
                async for event in events:
                    yield event if isinstance(event, LogEntry) else Built(env_id=event.env_id)

    async def deploy(
        self, scope: Scope, request: DeployRequest
    ) -> AsyncGenerator[LogEntry | Registered | Deployed, None]:
        """Check everything, build, store the revision and move the app. An app has one deploy at a time.

        A rolling deploy of an existing app waits until the app has moved, unless the request detaches. The rollout
        continues if the caller disconnects.

        Raises:
            InvalidArgument: the request is not valid; nothing was changed.
            NotFound: there is no such environment; nothing was changed.
            FailedPrecondition: the build failed, or a secret or file that the code names is missing, and nothing was
                changed; or the new revision did not become ready, and the app keeps the old one.
            Aborted: a newer deploy replaced this one.
        """
        async with aclosing(streamed(partial(self._deploy, scope, request))) as events:
            async for event in events:
                yield event

    async def built(self, code: CodeRequest, log: BuildLog) -> BuiltEnvironment:
        """Return the environment of a request. Build it if it does not exist."""
        if not code.environments:
            raise InvalidArgument("environments", "environments is empty: say which environment the code runs in")
        spec = code.environments[0].with_context(code.files)
        if code.env_id and code.env_id != spec.env_id:
            raise InvalidArgument("env_id", "env_id is not that of the given environment: leave one of the two out")
        known = None if code.force_build else self._builder.find(spec)
        if known is not None:
            return known
        return await self._builder.build(spec, force=code.force_build, log=self._build_lines.keeping(spec.env_id, log))

    @asynccontextmanager
    async def _recording_failure(self, app_id: AppId | None) -> AsyncGenerator[None]:
        """Record in an app's history that a deploy or its build failed."""
        try:
            yield
        except Fault as fault:
            if app_id is not None:
                with suppress(Unavailable):  # the caller needs to know of the first fault
                    await self._catalog.record_failed_deploy(app_id, fault.message)
            raise

    async def _built_for(
        self, account: AccountId, environment: str, code: CodeRequest, log: BuildLog
    ) -> BuiltEnvironment:
        """Return the environment of an app. Record for its owner why a build failed."""
        try:
            return await self.built(code, log)
        except Fault as fault:
            app = _app_of(account, environment, code)
            if app is not None and code.environments:
                env_id = code.environments[0].with_context(code.files).env_id
                await self._build_lines.store_failed(env_id, app, self._said(LogLevel.ERROR, str(fault)))
            raise

    async def missing_secrets(self, account: AccountId, code: CodeRequest, environment: str) -> str:
        """Return which secrets of the code are unset, and what to do. It is empty if all are set."""
        if not code.secret_names:
            return ""
        existing = {secret.name for secret in await self._store.list_secrets(account, environment)}
        missing = [name for name in dict.fromkeys(code.secret_names) if name not in existing]
        if not missing:
            return ""
        return (
            f"the code asks for secrets that environment {environment!r} lacks: "
            f"{', '.join(name[:80] for name in missing[:10])}; set them with `fal secrets set`, then deploy again"
        )

    def scaling_of(self, settings: Mapping[str, int | tuple[str, ...]]) -> Scaling:
        """Return the settings of a request, completed with the platform's defaults.

        Raises:
            InvalidArgument: a setting or machine type is unknown, a value out of range, or a region is no name.
        """
        unknown = sorted(set(settings) - {field.name for field in fields(Scaling)})
        if unknown:
            raise InvalidArgument(unknown[0], f"{unknown[0]} is not a scaling setting")
        values = {name: value for name, value in settings.items() if value != ()}
        least = values.get("min_concurrency")
        if isinstance(least, int) and "max_concurrency" not in values:
            values["max_concurrency"] = max(least, Scaling().max_concurrency)
        if values.get("request_start_timeout") == 0:
            del values["request_start_timeout"]
        scaling = Scaling(**values)  # type: ignore[arg-type]  # __post_init__ checks the values
        self._machine_types.check(scaling.machine_types)
        names.region_names(scaling.regions)
        return scaling

    def lack(self, code: CodeRequest, scaling: Scaling) -> str:
        """Return the code's requirement that no machine satisfies. It is empty if one satisfies all."""
        found = lack_everywhere(scaling.machine_types, code.num_gpus, scaling.regions, self._nodes())
        return f"no machine can run it: {found}" if found else ""

    def _said(self, level: LogLevel, message: str) -> LogEntry:
        return LogEntry(
            runner_id="",
            sequence=0,
            timestamp=self._clock.now(),
            level=level,
            source=LogSource.SYSTEM,
            message=message,
        )

    async def revision(
        self,
        account: AccountId,
        code: CodeRequest,
        app_name: str,
        environment: str,
        scaling: Scaling,
        revision_id: str | None = None,
        *,
        keep: bool = True,
    ) -> Revision:
        """Check a request's code and return it as an unstored revision.

        Args:
            keep: whether to store the code itself; if not, files and secrets may be missing, too.

        Raises:
            InvalidArgument: there is no callable, there are two, or one is too large.
            FailedPrecondition: a file was not uploaded, or a secret is not set.
        """
        if code.function is None and not code.entrypoint:
            if not any(spec.runs_itself for spec in code.environments[:1]):
                raise InvalidArgument("callable", "neither function nor entrypoint is set: say what to run")
            if code.exposed_port is None:
                raise InvalidArgument("exposed_port", "exposed_port is not set: say where the image listens")
        if code.function is not None and code.entrypoint:
            raise InvalidArgument("callable", "both function and entrypoint are set: say one thing to run")
        if keep:
            await self._check_content(account, code, environment)
        return Revision(
            account=account,
            revision_id=revision_id or str(uuid.uuid4()),
            app_name=app_name,
            environment=environment,
            created_at=self._clock.now(),
            environments=tuple(spec.with_context(code.files) for spec in code.environments),
            function=await self._payload(code.function, "function", keep=keep),
            entrypoint=code.entrypoint,
            setup=await self._payload(code.setup, "setup_func", keep=keep),
            run_on_main_thread=code.run_on_main_thread,
            exposed_port=code.exposed_port,
            metrics_port=code.metrics_port,
            num_gpus=code.num_gpus,
            files=code.files,
            secret_names=code.secret_names,
            scaling=scaling,
            health_check=code.health_check,
            termination_grace_seconds=5 if code.termination_grace_seconds is None else code.termination_grace_seconds,
            private_logs=code.private_logs,
        )

    async def revision_of(
        self,
        account: AccountId,
        request: DeployRequest,
        app_name: str,
        environment: str,
        scaling: Scaling,
        *,
        keep: bool = True,
    ) -> Revision:
        """Return the revision of a deploy, which is not stored yet."""
        made = await self.revision(
            account, request.code, app_name, environment, scaling, request.revision_id, keep=keep
        )
        return replace(
            made,
            metadata=request.metadata,
            source_code=request.source_code,
            retry_config=request.retry_config,
            skip_retry_conditions=request.skip_retry_conditions,
        )

    async def _deploy(
        self, scope: Scope, request: DeployRequest, log: Callable[[LogEntry | Registered], Awaitable[None]]
    ) -> Deployed:
        code, account = request.code, scope.account
        environment = names.environment_name(code.environment_name)
        if not code.application_name:
            raise InvalidArgument("application_name", "application_name is empty: name the app")
        name = names.app_name(code.application_name, environment)
        environment = await existing_environment(self._store, account, names.split_app_name(name)[1])
        app_id = AppId.parse(account, name)
        async with self._deploying[app_id]:
            revision = await self._repeated(account, request, name, environment)
            if revision is None:
                async with self._recording_failure(app_id):
                    revision, app = await self._register(account, request, name, environment, log)
                awaited = app.next_revision_id == revision.revision_id
            else:
                known = self._catalog.get(app_id)
                if known is None:
                    raise NotFound(f"app {name!r}", f"it was deleted after it got revision {revision.revision_id}")
                app = known
                await log(await self._registered_before(revision))
                awaited = True
        # This is outside the lock, so that a later deploy can replace this one.
        if awaited and request.attach is not False:
            await self._apps.rollout_watcher(scope, self._logs, log).wait(app_id, revision.revision_id)
            app = self._catalog.get(app_id) or app
        env_id = next((spec.env_id for spec in revision.environments), "")
        return Deployed(app=app, revision_id=revision.revision_id, urls=self._urls(app_id), env_id=env_id)

    async def _register(
        self,
        account: AccountId,
        request: DeployRequest,
        name: str,
        environment: str,
        log: Callable[[LogEntry | Registered], Awaitable[None]],
    ) -> tuple[Revision, App]:
        """Build and store a revision. Move the app to it or begin to."""
        code = request.code
        scaling = self.scaling_of(code.scaling)
        built = await self._built_for(account, environment, code, log)
        revision = await self.revision_of(account, request, name, environment, scaling)
        previous_id: str | None = None

        def move(before: App | None) -> App:
            nonlocal previous_id
            previous_id = None if before is None else before.revision_id
            return self.moved(before, request, revision)

        app = await self._catalog.register(revision, move)
        await log(Registered(app_name=app.name, revision_id=revision.revision_id, previous_id=previous_id))
        if stays := kept(code.scaling, app, revision):
            await log(self._said(LogLevel.WARNING, stays))
        await self._build_lines.store(built.env_id, revision)
        if self._expect is not None and app.revision_id == revision.revision_id and not scaling.min_concurrency:
            await self._expect(revision)
        return revision, app

    async def _repeated(
        self, account: AccountId, request: DeployRequest, app_name: str, environment: str
    ) -> Revision | None:
        """Return the revision of a repeated deploy, whose first response was lost. None for a new one.

        Raises:
            AlreadyExists: the id belongs to another app's revision, or to one with other code or settings.
        """
        revision_id = request.revision_id
        stored = None if revision_id is None else await self._store.get_revision(EVERY_ACCOUNT, revision_id)
        if stored is None:
            return None
        if (stored.account, stored.app_name) != (account, app_name):
            raise AlreadyExists(f"revision {revision_id} exists already, of another app: choose another revision_id")
        scaling = self.scaling_of(request.code.scaling)
        asked = await self.revision_of(account, request, app_name, environment, scaling, keep=False)
        if differing := _differing(stored, replace(asked, created_at=stored.created_at)):
            raise AlreadyExists(
                f"revision {revision_id} exists already, and differs in {', '.join(differing)}: "
                "choose another revision_id"
            )
        return stored

    async def _registered_before(self, revision: Revision) -> Registered:
        """Return which revision was deployed before this one."""
        stored = await self._store.list_revisions(revision.account, revision.app_name, None)
        earlier = [other for other in stored if other.created_at < revision.created_at]
        previous = max(earlier, key=lambda other: other.created_at, default=None)
        return Registered(
            app_name=revision.app_name,
            revision_id=revision.revision_id,
            previous_id=None if previous is None else previous.revision_id,
        )

    def moved(self, app: App | None, request: DeployRequest, revision: Revision) -> App:
        """Return the app after a deploy. It is on the revision, or about to roll to it."""
        now = self._clock.now()
        if app is None:
            return App(
                account=revision.account,
                name=revision.app_name,
                environment=revision.environment,
                revision_id=revision.revision_id,
                auth_mode=request.code.auth_mode or AuthMode.PRIVATE,
                scaling=revision.scaling,
                created_at=now,
                updated_at=now,
            )
        moved = self._apps.moved(
            app,
            revision,
            request.strategy,
            auth_mode=request.code.auth_mode,
            reset_scale=request.reset_scale,
        )
        return replace(moved, updated_at=now)

    async def _check_content(self, account: AccountId, code: CodeRequest, environment: str) -> None:
        if missing := await self.missing_secrets(account, code, environment):
            raise FailedPrecondition(missing)
        hashes = list(dict.fromkeys(file.hash for file in code.files))
        absent = await asyncio.to_thread(self._files.missing, account, hashes)
        for file in code.files:
            if file.hash in absent:
                raise FailedPrecondition(f"file {file.relative_path!r} was not uploaded: upload it, then deploy again")

    async def _payload(self, pickled: tuple[str, bytes] | None, field: str, *, keep: bool) -> Payload | None:
        if pickled is None:
            return None
        method, content = pickled
        if not content or len(content) > MAX_FUNCTION_BYTES:
            raise InvalidArgument(field, f"{field} is {len(content)} bytes: it must have 1 to {MAX_FUNCTION_BYTES}")
        if not all(part.isidentifier() for part in method.split(".")):
            raise InvalidArgument(field, f"{field}'s method {method[:80]!r} is not a module's name: use cloudpickle")
        blob = await self._blobs.put(content) if keep else hashlib.sha256(content).hexdigest()
        return Payload(method=method, blob=blob)


def _app_of(account: AccountId, environment: str, code: CodeRequest) -> AppId | None:
    """Return the app that a build is for. None if it names no valid one."""
    try:
        return AppId.parse(account, names.app_name(code.application_name or "", environment))
    except InvalidArgument:
        return None


def _differing(stored: Revision, asked: Revision) -> list[str]:
    """Return the names of the fields in which two revisions differ."""
    return [each.name for each in fields(stored) if getattr(stored, each.name) != getattr(asked, each.name)]


async def streamed(work: Callable[[Callable[[E], Awaitable[None]]], Awaitable[T]]) -> AsyncGenerator[E | T, None]:
    """Run `work`; yield its reports, then its result. Closing the iterator cancels it."""
    lines: asyncio.Queue[E | None] = asyncio.Queue(maxsize=1000)

    async def working() -> T:
        try:
            return await work(lines.put)
        finally:
            # if it is full, nobody waits for a line, and the reader sees the end after the last one
            if not lines.full():
                lines.put_nowait(None)

    task = asyncio.ensure_future(working())
    try:
        while not (task.done() and lines.empty()):
            line = await lines.get()
            if line is not None:
                yield line
        yield await task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        elif not task.cancelled():
            task.exception()
