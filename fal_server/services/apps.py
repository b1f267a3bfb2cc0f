"""Listing, scaling, moving, rolling out and deleting apps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

from fal_server.core import names
from fal_server.core.apps import App, AuthMode, Strategy
from fal_server.core.faults import Invalid, NotFound
from fal_server.core.machines import resources_of
from fal_server.core.runners import Desired
from fal_server.core.scaling import Scaling
from fal_server.ports import Clock
from fal_server.services.catalog import Catalog
from fal_server.services.dispatch import Dispatcher
from fal_server.services.fleet import Fleet
from fal_server.services.views import AppView

_SETTINGS = frozenset(field.name for field in fields(Scaling))


class Apps:
    """The use cases of apps."""

    def __init__(self, catalog: Catalog, fleet: Fleet, dispatcher: Dispatcher, clock: Clock) -> None:
        self._catalog = catalog
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._clock = clock

    async def list(self, environment: str | None) -> Sequence[AppView]:
        """Apps by name; None is those of all environments.

        Raises:
            Invalid: that cannot be an environment's name.
        """
        wanted = names.environment_name(environment) if environment else None
        apps = [app for app in self._catalog.apps if wanted in (None, app.environment)]
        return [self._view(app) for app in sorted(apps, key=lambda app: app.name)]

    async def set_revision(
        self, name: str, environment: str, revision_id: str, *, auth_mode: AuthMode | None, strategy: Strategy | None
    ) -> AppView:
        """Move an app to one of its revisions (a rollback, mostly); an app that is not there is made.

        Args:
            strategy: None and rolling wait for a ready runner where the app has runners; recreate moves at once.

        Raises:
            NotFound: there is no such revision, or it belongs to another app.
        """
        full = names.app_name(name, names.environment_name(environment), "alias")
        names.identifier(revision_id, "revision")
        revision = await self._catalog.find_revision(revision_id)
        if revision is None:
            raise NotFound(f"there is no revision {revision_id!r}: `fal apps list-rev {full}` shows those of the app")
        now = self._clock.now()
        app = self._catalog.get(full)
        if app is None:
            app = App(
                name=full,
                environment=names.split_app_name(full)[1],
                revision_id=revision_id,
                auth_mode=auth_mode or AuthMode.PRIVATE,
                scaling=revision.scaling,
                created_at=now,
                updated_at=now,
            )
        else:
            app = replace(
                self.moved(app, revision_id, strategy or Strategy.ROLLING),
                auth_mode=auth_mode or app.auth_mode,
                updated_at=now,
            )
        await self._catalog.save(app)
        return self._view(app)

    def moved(self, app: App, revision_id: str, strategy: Strategy) -> App:
        """The app on its way to a revision: at once, or, where it has runners to protect, when one of it is ready."""
        protects = any(
            r.app_name == app.name and r.desired is Desired.SERVE and r.revision_id == app.revision_id and r.routable
            for r in self._fleet.runners
        )
        if strategy is Strategy.ROLLING and protects and revision_id != app.revision_id:
            return replace(app, next_revision_id=revision_id)
        return replace(app, revision_id=revision_id, next_revision_id=None)

    async def update(self, name: str, environment: str, changes: Mapping[str, int | tuple[str, ...] | None]) -> AppView:
        """Change scaling settings; what is not named stays.

        Args:
            changes: by the field names of core.scaling.Scaling; request_start_timeout 0 clears it.

        Raises:
            NotFound: there is no such app.
            Invalid: an unknown setting, or a value out of bounds.
        """
        app = self._require(name, environment)
        unknown = sorted(set(changes) - _SETTINGS)
        if unknown:
            raise Invalid(unknown[0], f"{unknown[0]} is not a scaling setting")
        values = dict(changes)
        if values.get("request_start_timeout") == 0:
            values["request_start_timeout"] = None
        scaling = replace(app.scaling, **values)  # type: ignore[arg-type]  # __post_init__ checks the values
        for machine_type in scaling.machine_types:
            resources_of(machine_type)
        app = replace(app, scaling=scaling, updated_at=self._clock.now())
        await self._catalog.save(app)
        return self._view(app)

    async def rollout(self, name: str, environment: str, *, force: bool) -> None:
        """Replace an app's runners: one ready replacement at a time, or all at once with `force`.

        Raises:
            NotFound: there is no such app.
        """
        app = self._require(name, environment)
        for runner in [r for r in self._fleet.runners if r.app_name == app.name and r.desired is Desired.SERVE]:
            if force or not runner.routable:
                await self._fleet.drain(runner.runner_id, "rolled out")
            else:
                await self._fleet.change(
                    runner.runner_id, lambda r: replace(r, replace_first=True, reason="rolled out")
                )

    async def delete(self, name: str, environment: str) -> App:
        """Delete an app; its runners finish what they have and stop. Its revisions stay until deleted themselves.

        Raises:
            NotFound: there is no such app.
        """
        app = await self._catalog.delete(self._require(name, environment).name)
        self._dispatcher.drop_app(app.name)
        return app

    def _require(self, name: str, environment: str) -> App:
        return self._catalog.require(names.app_name(name, names.environment_name(environment)))

    def _view(self, app: App) -> AppView:
        return AppView(
            app=app, active_runners=self._fleet.active(app.name), is_rolling=app.next_revision_id is not None
        )
