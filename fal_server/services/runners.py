"""Lists, stops, kills and enters runners."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from heapq import merge
from operator import attrgetter

from fal_server.aio.slices import in_slices
from fal_server.core import autoscale, names
from fal_server.core.checks import check_bounds
from fal_server.core.cursors import read_cursor, write_cursor
from fal_server.core.faults import InvalidArgument, NotFound
from fal_server.core.history import start_phases
from fal_server.core.identity import AppId, Scope
from fal_server.core.revisions import MAX_GRACE_SECONDS
from fal_server.core.runners import Runner
from fal_server.live.catalog import Catalog
from fal_server.live.dispatch import Dispatcher
from fal_server.live.feed import Changes, Feed
from fal_server.live.fleet import Fleet
from fal_server.live.measurements import Measurements
from fal_server.live.runner_view import RunnerView
from fal_server.ports import Clock, Engine, ExecRequest, ExecSession
from fal_server.services.execs import WITHOUT_PROCESS, require_enterable

MAX_SINCE = timedelta(days=1)
STOPPED = "stopped by request"
MOST_ON_A_PAGE = 1000
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
# A watcher that resumes gets the details of this many recently ended runners; of the others it only learns that they
# are gone.
_MOST_ENDED = 500
_ROUNDING_SECONDS = 1.5
_age: Callable[[Runner], tuple[datetime, str]] = attrgetter("created_at", "runner_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerPage:
    """Some runners, and the token of the next page. The token is "" on the last."""

    views: Sequence[RunnerView]
    next_token: str


class Runners:
    """The use cases of runners."""

    def __init__(
        self,
        catalog: Catalog,
        fleet: Fleet,
        dispatcher: Dispatcher,
        engine: Engine,
        clock: Clock,
        resources: Measurements,
    ) -> None:
        self._catalog = catalog
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._engine = engine
        self._clock = clock
        self._resources = resources
        self._ended: deque[Runner] = deque(maxlen=_MOST_ENDED)
        fleet.subscribe(ended=self._ended.append)
        self._feed = Feed(self._look, _alike, catalog.changed)

    async def list(self, scope: Scope, *, since: datetime | None, include_pending: bool) -> Sequence[RunnerView]:
        """Return all runners, oldest first.

        Args:
            since: include those that ended at or after this time, at most 24 hours ago.
            include_pending: include those without a process.

        Raises:
            InvalidArgument: `since` is too long ago.
        """
        return await self._views(await self._all(scope, since), include_pending)

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
        """Return a page of runners: ended ones, by their end. The last page also has all others.

        A runner that ends between two pages is on the later one.

        Args:
            name: only the runners of this app; None means all.
            since: include those that ended at or after this time, at most 24 hours ago.
            include_pending: include those without a process.
            size: about the most runners on the page.
            token: of the previous page; "" for the first.

        Raises:
            InvalidArgument: `since` is too long ago, `size` is not positive, or `token` is malformed.
            NotFound: there is no such app.
        """
        if size < 1:
            raise InvalidArgument("page_size", f"page_size is {size}: use 1 to {MOST_ON_A_PAGE}, or leave it out")
        size = min(size, MOST_ON_A_PAGE)
        after = _read_token(token) if token else (since or _BEGINNING, "")
        app: AppId | None = None
        if name is not None:
            app = (await self._catalog.require_in(scope.account, name, environment, "alias")).app_id
        self._check_since(since)
        # Those that have not ended first: one that ends in between is then in both, and shown as ended.
        others = self._fleet.of_account(scope.account)
        ended: list[Runner] = []
        if since is not None:
            ended = await self._fleet.page_ended(scope.account, since, app, after, size)
        if len(ended) == size:
            return RunnerPage(views=await self._views(ended, include_pending), next_token=_token_after(ended[-1]))
        ids = {r.runner_id for r in ended}
        others.sort(key=_age)
        mine = (r for r in others if r.runner_id not in ids and (app is None or app == r.app_id))
        return RunnerPage(views=await self._views([*ended, *mine], include_pending), next_token="")

    async def watch(
        self, scope: Scope, name: str, environment: str, *, since: datetime | None, version: str
    ) -> AsyncGenerator[Changes[RunnerView]]:
        """Yield the runners, or the changes since a version; then further changes.

        An ending runner appears once more, as TERMINATED.

        Args:
            name: only the runners of this app; "" means all.
            since: a snapshot also has those that ended at or after this time, at most 24 hours ago.

        Raises:
            InvalidArgument: `since` is too long ago, or `version` is malformed.
            NotFound: there is no such app.
        """
        app = (await self._catalog.require_in(scope.account, name, environment, "alias")).app_id if name else None
        self._check_since(since)  # before the first message

        def mine(view: RunnerView) -> bool:
            return view.runner.account == scope.account and app in {None, view.runner.app_id}

        async for changes in self._feed.follow(version, mine):
            if not changes.snapshot:
                yield changes
                continue
            # The list is newer than the version: the following changes miss nothing, and may repeat parts of it.
            listed = await self.list(scope, since=since, include_pending=True)
            yield replace(changes, rows=[view for view in listed if mine(view)])

    async def _look(self) -> Mapping[str, RunnerView]:
        views = await self._views([*self._ended, *self._fleet.runners], include_pending=True)
        return {view.runner.runner_id: view async for view in in_slices(views)}

    async def get(self, scope: Scope, runner_id: str) -> RunnerView:
        """Return one runner, even an ended one, with its history.

        Raises:
            NotFound: there is no such runner, or its row was deleted.
        """
        runner = await self._require(scope, runner_id)
        view = self._view(runner, held=self._floor_holds(runner.app_id))
        history = tuple(await self._fleet.history(scope.account, runner_id))
        return replace(view, history=history, phases=start_phases(runner))

    async def stop(
        self, scope: Scope, runner_id: str, *, replace_first: bool, grace_seconds: int | None = None
    ) -> None:
        """Stop a runner gracefully. It gets no further requests, finishes the current ones, then gets SIGTERM.

        Stopping a runner twice is not an error.

        Args:
            replace_first: first start another one and wait until it is ready.
            grace_seconds: from SIGTERM to SIGKILL; None means the app's setting.

        Raises:
            NotFound: there is no such runner, or it has ended.
            InvalidArgument: the grace is out of range.
        """
        runner = await self._require_alive(scope, runner_id)
        check_bounds("grace_seconds", grace_seconds, 0, MAX_GRACE_SECONDS)
        grace = runner.grace_seconds if grace_seconds is None else grace_seconds
        if replace_first and runner.routable and not runner.ephemeral:
            await self._fleet.change(
                runner_id, lambda r: replace(r, replace_first=True, reason=STOPPED, grace_seconds=grace)
            )
        else:
            await self._fleet.drain(runner_id, STOPPED, grace)

    async def kill(self, scope: Scope, runner_id: str) -> None:
        """Kill a runner and all its processes at once.

        Raises:
            NotFound: there is no such runner, or it has ended.
        """
        await self._require_alive(scope, runner_id)
        await self._fleet.kill(runner_id, "killed by request")

    async def exec(self, scope: Scope, runner_id: str, request: ExecRequest) -> ExecSession:
        """Run a command beside a runner's worker.

        Raises:
            NotFound: there is no such runner, or it has ended.
            FailedPrecondition: it has no process yet, or is ending.
            Unavailable: it cannot be reached.
        """
        runner = await self._require(scope, runner_id)
        require_enterable(runner)
        return await self._engine.exec(runner, request)

    async def _all(self, scope: Scope, since: datetime | None) -> Sequence[Runner]:
        if since is None:
            return self._fleet.of_account(scope.account)
        self._check_since(since)
        # The living ones first: a runner that ends in between is then in both, and shown as ended.
        living = sorted(self._fleet.of_account(scope.account), key=_age)
        ended = await self._fleet.ended_since(scope.account, since)
        ids = {r.runner_id for r in ended}
        oldest_first = merge((r for r in living if r.runner_id not in ids), ended, key=_age)
        return [r async for r in in_slices(oldest_first)]

    def _check_since(self, since: datetime | None) -> None:
        # Allow one minute more, so that "24h" is not too long ago when a client's call arrives.
        if since is not None and self._clock.now() - since > MAX_SINCE + timedelta(minutes=1):
            raise InvalidArgument("start_time", "start_time lies more than 24 hours back: ask for at most the last day")

    async def _require(self, scope: Scope, runner_id: str) -> Runner:
        runner = await self._fleet.find(scope.account, names.identifier(runner_id, "runner_id"))
        if runner is None:
            raise NotFound(f"runner {runner_id!r}", "`fal runners list` shows which exist")
        return runner

    async def _require_alive(self, scope: Scope, runner_id: str) -> Runner:
        runner = await self._require(scope, runner_id)
        if runner.ended:
            raise NotFound(
                f"runner {runner_id!r}", f"it has ended already ({runner.reason or 'the reason is not known'})"
            )
        return runner

    async def _views(self, runners: Iterable[Runner], include_pending: bool) -> Sequence[RunnerView]:
        held: dict[AppId, bool] = {}
        shown = [r for r in runners if include_pending or r.state not in WITHOUT_PROCESS]
        views: list[RunnerView] = []
        async for runner in in_slices(shown):
            if runner.app_id not in held:
                held[runner.app_id] = self._floor_holds(runner.app_id)
            views.append(self._view(runner, held=held[runner.app_id]))
        return views

    def _floor_holds(self, app_id: AppId) -> bool:
        """Return whether an app has no surplus of ready runners. In that case none of them expires."""
        app = self._catalog.get(app_id)
        if app is None:
            return True
        places = self._fleet.places(app_id, app.revision_id)
        ready = 0 if places is None else len(places)
        return ready <= autoscale.decide(app.scaling, self._dispatcher.load(app)).keep

    def _view(self, runner: Runner, *, held: bool) -> RunnerView:
        view = self._fleet.view(runner, self._keep_alive(runner, held=held))
        resources = self._resources.of(runner.runner_id)
        return view if resources is None else replace(view, resources=resources)

    def _keep_alive(self, runner: Runner, *, held: bool) -> int | None:
        """Return after how many idle seconds a runner ends. None if it does not."""
        app = self._catalog.get(runner.app_id)
        if app is None or held or runner.ephemeral:
            return None
        used = self._fleet.usage(runner.runner_id).last_request_at is not None
        floor = app.scaling.min_concurrency or app.scaling.concurrency_buffer
        return app.scaling.keep_alive if used or floor else autoscale.NEVER_USED_SECONDS


def _alike(before: RunnerView, now: RunnerView) -> bool:
    """Return whether a watcher need not be notified. Uptime and countdown advance by themselves."""
    return _reported(before) == _reported(now) and _same_end(before, now)


def _reported(view: RunnerView) -> tuple[object, ...]:
    used = None if view.resources is None else view.resources.rounded
    return view.runner, view.state, view.leases, used


def _same_end(before: RunnerView, now: RunnerView) -> bool:
    """Return whether two countdowns end at the same whole second."""
    if before.expires_in_seconds is None or now.expires_in_seconds is None:
        return before.expires_in_seconds is now.expires_in_seconds
    passed = now.uptime_seconds - before.uptime_seconds
    return abs(before.expires_in_seconds - passed - now.expires_in_seconds) < _ROUNDING_SECONDS


def _token_after(runner: Runner) -> str:
    """Return the token of the page after an ended runner."""
    passed = (runner.ended_at or _BEGINNING) - _BEGINNING
    return write_cursor([passed // timedelta(microseconds=1), runner.runner_id])


def _read_token(token: str) -> tuple[datetime, str]:
    """Return the end and id of the last runner of a page.

    Raises:
        InvalidArgument: it is not a page token.
    """
    try:
        match read_cursor(token):
            case [int(passed), str(runner_id)] if not isinstance(passed, bool):
                return _BEGINNING + timedelta(microseconds=passed), runner_id
            case _:
                raise ValueError(token)
    except (ValueError, OverflowError):
        raise InvalidArgument(
            "page_token", "this controller did not make that page_token: start again without it"
        ) from None
