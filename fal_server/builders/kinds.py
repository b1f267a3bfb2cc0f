"""Chooses the builder of each environment by its kind."""

from __future__ import annotations

from fal_server.builders.container import ContainerBuilder
from fal_server.builders.virtualenv import VirtualenvBuilder
from fal_server.core.containers import CONTAINER
from fal_server.core.revisions import EnvironmentSpec
from fal_server.ports import BuildLog, BuiltEnvironment


class Builders:
    """Implements Builder. The virtualenv builder rejects unknown kinds."""

    def __init__(self, virtualenvs: VirtualenvBuilder, containers: ContainerBuilder) -> None:
        self._virtualenvs = virtualenvs
        self._containers = containers

    async def build(self, spec: EnvironmentSpec, *, force: bool, log: BuildLog) -> BuiltEnvironment:
        return await self._of(spec).build(spec, force=force, log=log)

    def find(self, spec: EnvironmentSpec) -> BuiltEnvironment | None:
        return self._of(spec).find(spec)

    async def present(self, spec: EnvironmentSpec) -> BuiltEnvironment | None:
        if spec.kind == CONTAINER:
            return await self._containers.present(spec)
        return self._virtualenvs.find(spec)

    async def close(self) -> None:
        """Cancel the builds that are running."""
        await self._virtualenvs.close()
        await self._containers.close()

    def _of(self, spec: EnvironmentSpec) -> VirtualenvBuilder | ContainerBuilder:
        return self._containers if spec.kind == CONTAINER else self._virtualenvs
