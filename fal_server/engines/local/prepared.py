"""Prepares a launch on this machine. It builds the environment, and finds code and files."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fal_server.core.containers import CONTAINER
from fal_server.core.faults import NotFound
from fal_server.core.logs import LogEntry
from fal_server.core.revisions import EnvironmentSpec, Payload
from fal_server.engines.shim.host import missing_content
from fal_server.ports import (
    Blobs,
    Builder,
    Building,
    BuiltEnvironment,
    DeployedFiles,
    ExpectedStart,
    LaunchSpec,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedLaunch:
    """A launch, and the paths of its parts on this machine.

    Attributes:
        environment: the environment that its code runs in.
        function, setup: the pickled callables.
        files: for each file its path below the app's directory, and the path of its content.
        devices: the device files, below /dev, that its sandbox has beside those of every sandbox.
        gpu_variables: those of its variables that say which GPUs are its own.
    """

    spec: LaunchSpec
    environment: BuiltEnvironment
    function: Path | None
    setup: Path | None
    files: tuple[tuple[str, Path], ...]
    devices: tuple[str, ...] = ()
    gpu_variables: Mapping[str, str] = field(default_factory=dict[str, str])


class Preparer:
    """Resolves the parts of launches.

    Args:
        builder: finds environments, or builds them here.
        blobs: pickled code.
        files: the uploaded files of apps.
    """

    def __init__(self, builder: Builder, blobs: Blobs, files: DeployedFiles) -> None:
        self._builder = builder
        self._blobs = blobs
        self._files = files

    async def prepare(self, spec: LaunchSpec, building: Building | None) -> PreparedLaunch:
        """Find all parts. Build the environment if it is missing, although the deploy built it.

        Raises:
            FailedPrecondition: a part of the code is missing, or the environment cannot be built.
        """
        environment = await self._environment(spec.packages, building)
        try:
            function, setup, files = await asyncio.to_thread(self._parts, spec)
        except NotFound as fault:
            raise missing_content(spec) from fault
        return PreparedLaunch(spec=spec, environment=environment, function=function, setup=setup, files=files)

    async def find(self, start: ExpectedStart) -> tuple[Path, Path | None] | None:
        """Return the interpreter and the code of a runner that is expected. None if it needs another start."""
        if start.packages.kind == CONTAINER:
            return None
        environment = await self._builder.present(start.packages)
        if environment is None:
            return None
        try:
            return environment.python, await asyncio.to_thread(self._code, start.function)
        except NotFound:
            return None

    async def _environment(self, packages: EnvironmentSpec, building: Building | None) -> BuiltEnvironment:
        found = await self._builder.present(packages)
        if found is not None:
            return found
        if building is not None and packages.kind == CONTAINER:
            await building()
        return await self._builder.build(packages, force=False, log=_drop)

    def _parts(self, spec: LaunchSpec) -> tuple[Path | None, Path | None, tuple[tuple[str, Path], ...]]:
        """Return the paths of the code and of the files."""
        files = tuple((file.relative_path, self._files.path(spec.account, file.hash)) for file in spec.files)
        return self._code(spec.function), self._code(spec.setup), files

    def _code(self, payload: Payload | None) -> Path | None:
        return None if payload is None else self._blobs.path(payload.blob)


async def _drop(entry: LogEntry) -> None:
    """Ignore a line of the build's log. If the build fails, the fault says why."""
