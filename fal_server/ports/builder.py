"""The Protocols of the builder of apps' environments, and of built ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from fal_server.core.containers import Container
from fal_server.core.logs import LogEntry
from fal_server.core.retention import Generation
from fal_server.core.revisions import EnvironmentSpec

BuildLog: TypeAlias = "Callable[[LogEntry], Awaitable[None]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltEnvironment:
    """A finished environment: content hash, interpreter, and the container, if any."""

    env_id: str
    python: Path
    container: Container | None = None


class EnvironmentStore(Protocol):
    """The built environments, so that unneeded ones can be deleted."""

    def generations(self) -> Sequence[Generation]:
        """List all finished builds; blocking.

        Raises:
            Unavailable: the disk cannot be read.
        """
        ...

    async def delete(self, generation: Generation) -> bool:
        """Delete one build, so that no runner gets it any more.

        Returns:
            False if it was used since it was listed, or is gone.

        Raises:
            Unavailable: the disk does not allow it.
        """
        ...


class Builder(Protocol):
    """Builds the environments that apps run in. Each is built once, however many callers ask."""

    async def build(self, spec: EnvironmentSpec, *, force: bool, log: BuildLog) -> BuiltEnvironment:
        """Build an environment, or find it.

        A build continues while somebody waits for it.

        Args:
            force: build it again even if it exists, with newer packages if there are any; joins a running build.
            log: gets each line of output as it comes, from the first one on, numbered from 1 and without a runner's id.

        Raises:
            InvalidArgument: the configuration is wrong (field `environments`).
            Unimplemented: this kind cannot be built here.
            FailedPrecondition: the build failed; the message has the installer's output.
            Unavailable: the disk cannot be written; NodeTrouble if the machine is to blame.
        """
        ...

    def find(self, spec: EnvironmentSpec) -> BuiltEnvironment | None:
        """Return the build of this specification; None if there is none."""
        ...

    async def present(self, spec: EnvironmentSpec) -> BuiltEnvironment | None:
        """Return the build and make sure that it still exists. For images, the container engine is asked."""
        ...
