"""The Builder port over all kinds of environments: each is built by the builder of its kind."""

from __future__ import annotations

from fal_server.builders.container import ContainerBuilder
from fal_server.builders.virtualenv import VirtualenvBuilder
from fal_server.core.containers import CONTAINER
from fal_server.core.revisions import EnvironmentSpec
from fal_server.ports import BuildLog, BuiltEnvironment


class Builders:
    """Containers to the one, everything else to the other, which refuses what it does not know."""

    def __init__(self, virtualenvs: VirtualenvBuilder, containers: ContainerBuilder) -> None:
        self._virtualenvs = virtualenvs
        self._containers = containers

    async def build(self, spec: EnvironmentSpec, *, force: bool, log: BuildLog) -> BuiltEnvironment:
        """Build, or find what was built; see Builder."""
        return await self._of(spec).build(spec, force=force, log=log)

    def find(self, spec: EnvironmentSpec) -> BuiltEnvironment | None:
        """What was built for this spec, without building."""
        return self._of(spec).find(spec)

    async def present(self, spec: EnvironmentSpec) -> BuiltEnvironment | None:
        """The same; an engine is asked whether it has the image."""
        if spec.kind == CONTAINER:
            return await self._containers.present(spec)
        return self._virtualenvs.find(spec)

    async def close(self) -> None:
        """Give up the builds that are under way."""
        await self._virtualenvs.close()
        await self._containers.close()

    def _of(self, spec: EnvironmentSpec) -> VirtualenvBuilder | ContainerBuilder:
        return self._containers if spec.kind == CONTAINER else self._virtualenvs
