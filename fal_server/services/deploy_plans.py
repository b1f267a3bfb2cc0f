"""Reports what a deploy would change, without changing or building anything."""

from __future__ import annotations

from dataclasses import dataclass

from fal_server.core import names, reconcile
from fal_server.core.deploy_changes import Change, changes, kept, steps
from fal_server.core.identity import Scope
from fal_server.core.reconcile import AppInput
from fal_server.live.catalog import Catalog, existing_environment
from fal_server.live.dispatch import Dispatcher
from fal_server.live.fleet import Fleet
from fal_server.ports import Builder, Clock, Store
from fal_server.services.deploys import Deploys
from fal_server.services.views import DeployRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployPlan:
    """The effects of a deploy.

    Attributes:
        revision_id: the app's current revision; None for a new app.
        env_id: the environment.
        environment_built: whether it is already built.
        steps: the controller's steps, in order.
        problems: why the deploy, or the runners after it, would fail.
        kept: which settings of the app stay, though the code names others; empty if there are none.
    """

    app_name: str
    revision_id: str | None
    changes: tuple[Change, ...]
    env_id: str
    environment_built: bool
    steps: tuple[str, ...]
    problems: tuple[str, ...]
    kept: str


class DeployPlans:
    """The use case of `fal deploy --plan`."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        fleet: Fleet,
        dispatcher: Dispatcher,
        deploys: Deploys,
        builder: Builder,
        clock: Clock,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._deploys = deploys
        self._builder = builder
        self._clock = clock

    async def plan(self, scope: Scope, request: DeployRequest) -> DeployPlan:
        """Return what `Deploys.deploy` would do with a request.

        Raises:
            InvalidArgument: the request is not valid.
            NotFound: there is no such environment.
        """
        code, account = request.code, scope.account
        names.identifier(code.application_name, "application_name")
        name = names.app_name(code.application_name, names.environment_name(code.environment_name))
        environment = await existing_environment(self._store, account, names.split_app_name(name)[1])
        scaling = self._deploys.scaling_of(code.scaling)
        planned = await self._deploys.revision_of(account, request, name, environment, scaling, keep=False)
        app = self._catalog.get(planned.app_id)
        current = None if app is None else await self._catalog.find_revision(account, app.revision_id)
        after = self._deploys.moved(app, request, planned)
        runners = [runner for runner in self._fleet.of_app(planned.app_id) if not runner.ended]
        given = AppInput(
            app=after,
            load=self._dispatcher.load(after),
            num_gpus={planned.revision_id: planned.num_gpus},
            serves_http=planned.serves_http,
        )
        usage = {runner.runner_id: self._fleet.usage(runner.runner_id) for runner in runners}
        # Without nodes, because a runner's placement is only decided when it starts.
        actions = reconcile.plan([given], runners, usage, (), self._clock.now())
        spec = planned.environments[0]
        missing = await self._deploys.missing_secrets(account, code, environment)
        lack = self._deploys.lack(code, scaling)
        return DeployPlan(
            app_name=name,
            revision_id=None if app is None else app.revision_id,
            changes=changes(app, current, after, planned),
            env_id=spec.env_id,
            environment_built=not code.force_build and self._builder.find(spec) is not None,
            steps=tuple(steps(app, after, planned, actions, runners)),
            problems=tuple(filter(None, (missing, lack))),
            kept=kept(code.scaling, after, planned),
        )
