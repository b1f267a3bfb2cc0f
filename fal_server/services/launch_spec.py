"""Collects a new runner's parts: code, files, environment, variables, secrets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from fal_server.core.faults import FailedPrecondition, InvalidArgument
from fal_server.core.identity import AccountId
from fal_server.core.machines import MachineTypes
from fal_server.core.names import split_app_name
from fal_server.core.runners import Runner
from fal_server.live.catalog import Catalog
from fal_server.ports import LaunchSpec

RevealSecrets = Callable[[AccountId, str, tuple[str, ...] | None], Awaitable[dict[str, str]]]


class LaunchSpecs:
    """Makes the launch specifications of runners.

    Args:
        reveal: returns the values of an environment's secrets by name, or of all exposed ones for None.
        variables: returns the variables of every runner of an account, such as FAL_RUN_HOST.
        machine_types: define a runner's limits.
        runner_key: returns id and secret of a runner's own key.
    """

    def __init__(
        self,
        catalog: Catalog,
        reveal: RevealSecrets,
        variables: Callable[[AccountId], Mapping[str, str]],
        machine_types: MachineTypes,
        runner_key: Callable[[str], tuple[str, str]] | None = None,
    ) -> None:
        self._machine_types = machine_types
        self._catalog = catalog
        self._reveal = reveal
        self._variables = variables
        self._runner_key = runner_key

    async def of(self, runner: Runner) -> LaunchSpec:
        """Collect everything for one runner.

        Raises:
            FailedPrecondition: its revision or a secret that it names does not exist.
            InvalidArgument: its revision names no environment, or its machine type is unknown.
        """
        revision = await self._catalog.find_revision(runner.account, runner.revision_id)
        if revision is None:
            raise FailedPrecondition(f"revision {runner.revision_id} was deleted")
        if not revision.environments:
            raise InvalidArgument("environments", f"revision {revision.revision_id} names no environment")
        secrets = await self._reveal(runner.account, runner.environment, revision.secret_names)
        name, environment = split_app_name(runner.app_name)
        variables = {
            **self._variables(runner.account),
            "FAL_APP_NAME": name,
            "FAL_ENVIRONMENT_NAME": environment,
            "FAL_REVISION": runner.revision_id,
            "FAL_MACHINE_TYPE": runner.machine_type,
        }
        key_id, secret = ("", "") if self._runner_key is None else self._runner_key(runner.runner_id)
        # The published client prefers FAL_KEY to the other two, and its toolkit looks for either.
        key = {"FAL_KEY": f"{key_id}:{secret}", "FAL_KEY_ID": key_id, "FAL_KEY_SECRET": secret} if secret else {}
        return LaunchSpec(
            account=runner.account,
            runner_id=runner.runner_id,
            node=runner.node,
            app_name=runner.app_name,
            environment=runner.environment,
            revision_id=runner.revision_id,
            limits=self._machine_types.limits_of(runner.machine_type),
            gpus=runner.gpus,
            packages=revision.environments[0],
            function=revision.function,
            entrypoint=revision.entrypoint,
            setup=revision.setup,
            files=revision.files,
            serves_http=revision.serves_http,
            serves_metrics=revision.metrics_port is not None,
            app_port=revision.exposed_port,
            app_metrics_port=revision.metrics_port,
            variables={**variables, **key, **secrets},
            redact=(*([secret] if secret else ()), *secrets.values()),
            termination_grace_seconds=revision.termination_grace_seconds,
            token=runner.token,
        )
