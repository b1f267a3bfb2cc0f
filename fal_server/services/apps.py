"""Lists, scales, moves, rolls out and deletes apps."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import fields, replace
from operator import attrgetter

from fal_server.aio.slices import in_slices
from fal_server.core import names
from fal_server.core.apps import App, AuthMode, Strategy, settled
from fal_server.core.faults import InvalidArgument, NotFound
from fal_server.core.identity import AppId, Scope
from fal_server.core.machines import MachineTypes
from fal_server.core.revisions import Revision
from fal_server.core.runners import Desired
from fal_server.core.scaling import Scaling, carried_over
from fal_server.live.catalog import Catalog
from fal_server.live.dispatch import Dispatcher
from fal_server.live.feed import Changes, Feed
from fal_server.live.fleet import Fleet
from fal_server.ports import BuildLog, Clock
from fal_server.services.logs import Logs
from fal_server.services.rollout_watch import RolloutWatcher
from fal_server.services.views import AppView

_SETTINGS = frozenset(field.name for field in fields(Scaling))


class Apps:
    """The use cases of apps.

    Args:
        machine_types: the types that runners can have.
    """

    def __init__(
        self, catalog: Catalog, fleet: Fleet, dispatcher: Dispatcher, clock: Clock, machine_types: MachineTypes
    ) -> None:
        self._machine_types = machine_types
        self._catalog = catalog
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._clock = clock
        self._feed = Feed(self._look, lambda before, now: before == now, catalog.changed)

    async def list(self, scope: Scope, environment: str | None) -> Sequence[AppView]:
        """Return apps by name; None means all environments.

        Raises:
            InvalidArgument: it is not a valid environment name.
            NotFound: there is no such environment.
        """
        wanted = await self._catalog.existing_environment(scope.account, environment) if environment else None
        apps = [app for app in self._catalog.apps if app.account == scope.account and wanted in (None, app.environment)]
        apps.sort(key=attrgetter("name"))
        return [self.view(app) async for app in in_slices(apps)]

    async def watch(self, scope: Scope, environment: str, version: str) -> AsyncGenerator[Changes[AppView]]:
        """Yield the apps of an environment, or the changes since a version. Then yield further changes.

        Raises:
            InvalidArgument: the environment's name or the version is not valid.
            NotFound: there is no such environment.
        """
        wanted = await self._catalog.existing_environment(scope.account, environment)

        def mine(view: AppView) -> bool:
            return view.app.account == scope.account and view.app.environment == wanted

        async for changes in self._feed.follow(version, mine):
            yield changes

    async def _look(self) -> Mapping[AppId, AppView]:
        return {app.app_id: self.view(app) async for app in in_slices(list(self._catalog.apps))}

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
        """Move an app to one of its revisions, usually a rollback. Create the app if it does not exist.

        Args:
            strategy: rolling, like None, waits for a ready runner of the revision; recreate moves at once.

        Raises:
            NotFound: there is no such revision, or it belongs to another app.
        """
        full = names.app_name(name, await self._catalog.existing_environment(scope.account, environment), "alias")
        names.identifier(revision_id, "revision")
        revision = await self._catalog.find_revision(scope.account, revision_id)
        if revision is None:
            raise NotFound(f"revision {revision_id!r}", f"`fal apps list-rev {full}` shows those of the app")
        if revision.app_name != full:
            raise NotFound(
                f"revision {revision_id!r} of app {full!r}",
                f"it is one of {revision.app_name!r}; `fal apps list-rev {full}` shows those of the app",
            )
        # The caller wants another attempt even if its starts failed before.
        self._fleet.forgive(revision.app_id, revision_id)
        now = self._clock.now()

        def set_to(app: App | None) -> App:
            if app is None:
                return App(
                    account=scope.account,
                    name=full,
                    environment=revision.environment,
                    revision_id=revision_id,
                    auth_mode=auth_mode or AuthMode.PRIVATE,
                    scaling=revision.scaling,
                    created_at=now,
                    updated_at=now,
                )
            moved = self.moved(app, revision, strategy or Strategy.ROLLING, auth_mode=auth_mode)
            return replace(moved, updated_at=now)

        return self.view(await self._catalog.put(revision.app_id, set_to))

    def moved(
        self,
        app: App,
        revision: Revision,
        strategy: Strategy,
        *,
        auth_mode: AuthMode | None = None,
        reset_scale: bool = False,
    ) -> App:
        """Return the app moved to a revision. A rolling move waits until one of its runners is ready.

        Rolling protects the old revision even while it has no runner, because a revision that never becomes ready never
        gets traffic. A paused app and a revision without a port have no runner to wait for. Settings that come with the
        revision take effect with it, because the old revision was not made for them.

        Args:
            auth_mode: who may call the app from then on; None keeps the setting.
            reset_scale: take all settings from the code from then on.
        """
        if (
            strategy is Strategy.ROLLING
            and revision.revision_id != app.revision_id
            and revision.serves_http
            and app.scaling.max_concurrency > 0
        ):
            return replace(
                app,
                next_revision_id=revision.revision_id,
                next_auth_mode=auth_mode,
                next_scaling=revision.scaling if reset_scale else None,
            )
        same = revision.revision_id == app.revision_id
        scaling = app.scaling if same else carried_over(app.scaling, revision.scaling)
        return settled(
            app,
            revision_id=revision.revision_id,
            scaling=revision.scaling if reset_scale else scaling,
            auth_mode=auth_mode or app.auth_mode,
        )

    async def update(
        self, scope: Scope, name: str, environment: str, changes: Mapping[str, int | tuple[str, ...] | None]
    ) -> AppView:
        """Change scaling settings; the others stay.

        Args:
            changes: by the field names of core.scaling.Scaling; request_start_timeout 0 clears it.

        Raises:
            NotFound: there is no such app.
            InvalidArgument: a setting or machine type is unknown, a value out of range, or a region is no name.
        """
        app_id = (await self._catalog.require_in(scope.account, name, environment)).app_id
        unknown = sorted(set(changes) - _SETTINGS)
        if unknown:
            raise InvalidArgument(unknown[0], f"{unknown[0]} is not a scaling setting")
        values = dict(changes)
        if values.get("request_start_timeout") == 0:
            values["request_start_timeout"] = None
        if isinstance(machine_types := values.get("machine_types"), tuple):
            self._machine_types.check(machine_types)
        if isinstance(regions := values.get("regions"), tuple):
            names.region_names(regions)

        def scaled(app: App) -> App:
            scaling = _with(app.scaling, values)
            # A rolling deploy brings its own settings, so apply this change to them, too.
            next_scaling = None if app.next_scaling is None else _with(app.next_scaling, values)
            return replace(app, scaling=scaling, next_scaling=next_scaling, updated_at=self._clock.now())

        return self.view(await self._catalog.change(app_id, scaled))

    async def rollout(self, scope: Scope, name: str, environment: str, *, force: bool) -> None:
        """Replace an app's runners one by one, or all with `force`. Without `force` each replacement is ready first.

        With `force` a busy runner ends within its grace period, whatever happens to its requests.

        Raises:
            NotFound: there is no such app.
        """
        app = await self._catalog.require_in(scope.account, name, environment)
        self._fleet.forgive(app.app_id, app.revision_id)
        for runner in [r for r in self._fleet.of_app(app.app_id) if r.desired is Desired.SERVE]:
            if force:
                await self._fleet.stop(runner.runner_id, "rolled out")
            elif not runner.routable:
                await self._fleet.drain(runner.runner_id, "rolled out")
            else:
                await self._fleet.change(
                    runner.runner_id, lambda r: replace(r, replace_first=True, reason="rolled out")
                )

    async def delete(self, scope: Scope, name: str, environment: str) -> App:
        """Delete an app. Its runners finish their requests and stop, and its revisions are kept.

        Raises:
            NotFound: there is no such app.
        """
        found = await self._catalog.require_in(scope.account, name, environment, "alias")
        app = await self._catalog.delete(found.app_id)
        self._dispatcher.drop_app(app.app_id)
        self._fleet.forgive(app.app_id)
        return app

    def rollout_watcher(self, scope: Scope, logs: Logs | None, log: BuildLog) -> RolloutWatcher:
        """Return a watcher that waits for a rolling deploy."""
        return RolloutWatcher(scope, self._catalog, self._fleet, logs, self._clock, log)

    def view(self, app: App) -> AppView:
        """Return an app with its current state."""
        replacing = any(r.replace_first and r.desired is Desired.SERVE for r in self._fleet.of_app(app.app_id))
        rolling = app.next_revision_id is not None or replacing
        return AppView(
            app=app,
            active_runners=self._fleet.active(app.app_id),
            is_rolling=rolling,
            load=self._dispatcher.load(app),
            failures=self._fleet.failures(app.app_id, app.revision_id),
        )


def _with(scaling: Scaling, values: Mapping[str, int | tuple[str, ...] | None]) -> Scaling:
    return replace(scaling, **values)  # type: ignore[arg-type]  # __post_init__ checks the values
