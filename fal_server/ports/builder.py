"""What builds the environments that apps run in."""

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
    """A finished environment: its content hash, its interpreter, and the container that this is in, if any."""

    env_id: str
    python: Path
    container: Container | None = None


class EnvironmentStore(Protocol):
    """What was built, of which nobody may need some any more."""

    def generations(self) -> Sequence[Generation]:
        """All that are finished. Blocking.

        Raises:
            Unavailable: the disk cannot be read.
        """
        ...

    async def delete(self, generation: Generation) -> bool:
        """Delete one; False where it has been used since it was looked at, or is gone. No build finds it from then on.

        Raises:
            Unavailable: the disk does not let it.
        """
        ...


class Builder(Protocol):
    """Builds the environments that apps run in, each once however many ask."""

    async def build(self, spec: EnvironmentSpec, *, force: bool, log: BuildLog) -> BuiltEnvironment:
        """Build, or find what was built; each line of output goes to `log` as it comes.

        Args:
            force: build anew even where it is there.

        Raises:
            Invalid: the configuration is wrong (field `environments`).
            Unsupported: the kind cannot be built here.
            Precondition: the build failed; the message holds the installer's own words.
        """
        ...

    def find(self, spec: EnvironmentSpec) -> BuiltEnvironment | None:
        """What was built for this spec, without building."""
        ...

    async def present(self, spec: EnvironmentSpec) -> BuiltEnvironment | None:
        """The same, but where something outside of the state directory has it (a container engine), it was asked."""
        ...
