"""What a new runner is given: interpreter, code, files, variables and secrets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from fal_server.core.containers import CONTAINER
from fal_server.core.faults import FailedPrecondition, InvalidArgument, NotFound
from fal_server.core.logs import LogEntry
from fal_server.core.names import split_app_name
from fal_server.core.revisions import Payload, Revision
from fal_server.core.runners import Runner
from fal_server.live.catalog import Catalog
from fal_server.ports import Blobs, Builder, BuiltEnvironment, DeployedFiles, Launch

RevealSecrets = Callable[[str, tuple[str, ...] | None], Awaitable[dict[str, str]]]


class Launching:
    """Turns a runner's row into the order that an engine takes.

    Args:
        reveal: (environment, names or None for all exposed ones) -> the secrets' values.
        variables: what every runner is told about where it runs, such as FAL_RUN_HOST.
        files: the uploaded files of apps; None takes `blobs`.
        runner_key: a runner's id -> the key that lets it store files, as `id:secret`.
    """

    def __init__(
        self,
        catalog: Catalog,
        builder: Builder,
        blobs: Blobs,
        reveal: RevealSecrets,
        variables: Mapping[str, str],
        files: DeployedFiles | None = None,
        runner_key: Callable[[str], str] | None = None,
    ) -> None:
        self._catalog = catalog
        self._builder = builder
        self._blobs = blobs
        self._reveal = reveal
        self._variables = variables
        self._files = files or blobs
        self._runner_key = runner_key

    async def prepare(self, runner: Runner, pulling: Callable[[], Awaitable[object]]) -> Launch:
        """Collect everything for one runner.

        Args:
            pulling: called before an image is fetched or built for it, which may take minutes.

        Raises:
            Precondition: its revision is gone, a secret that it names or a part of its code is missing, or its
                environment cannot be built.
        """
        revision = await self._catalog.find_revision(runner.revision_id)
        if revision is None:
            raise FailedPrecondition(f"revision {runner.revision_id} was deleted")
        built = await self._environment(revision, pulling)
        secrets = await self._reveal(runner.environment, revision.secret_names)
        name, environment = split_app_name(runner.app_name)
        told = {
            **self._variables,
            "FAL_APP_NAME": name,
            "FAL_ENVIRONMENT_NAME": environment,
            "FAL_REVISION": runner.revision_id,
            "FAL_MACHINE_TYPE": runner.machine_type,
        }
        key = {} if self._runner_key is None else {"FAL_KEY": self._runner_key(runner.runner_id)}
        app = self._catalog.get(runner.app_name)
        try:
            code, setup = self._path(revision.function), self._path(revision.setup)
            files = tuple((file, self._files.path(file.hash)) for file in revision.files)
        except NotFound as fault:
            raise FailedPrecondition(
                f"a part of revision {revision.revision_id}'s code or files is missing from the state directory: "
                "deploy the app again, or put a backup of the directory back"
            ) from fault
        return Launch(
            runner_id=runner.runner_id,
            app_name=runner.app_name,
            environment=runner.environment,
            revision_id=runner.revision_id,
            machine_type=runner.machine_type,
            python=built.python,
            function=revision.function,
            function_path=code,
            entrypoint=revision.entrypoint,
            setup=revision.setup,
            setup_path=setup,
            run_on_main_thread=revision.run_on_main_thread,
            serves_http=revision.serves_http,
            serves_metrics=revision.metrics_port is not None,
            app_port=revision.exposed_port,
            app_metrics_port=revision.metrics_port,
            files=files,
            variables={**told, **key, **secrets},
            redact=(*key.values(), *secrets.values()),
            startup_timeout_seconds=(app.scaling if app else revision.scaling).startup_timeout,
            termination_grace_seconds=revision.termination_grace_seconds,
            attempt_token=runner.token,
            container=built.container,
        )

    async def _environment(self, revision: Revision, pulling: Callable[[], Awaitable[object]]) -> BuiltEnvironment:
        """The revision's environment; built again where it is missing (the deploy built it once)."""
        if not revision.environments:
            raise InvalidArgument("environments", f"revision {revision.revision_id} names no environment")
        spec = revision.environments[0]
        found = await self._builder.present(spec)
        if found is not None:
            return found
        if spec.kind == CONTAINER:
            await pulling()
        return await self._builder.build(spec, force=False, log=_silent)

    def _path(self, payload: Payload | None) -> Path | None:
        return None if payload is None else self._blobs.path(payload.blob)


async def _silent(entry: LogEntry) -> None:
    """A build that nobody asked to see; a failure's message says why."""
