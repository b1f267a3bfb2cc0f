"""The machine on which an engine runs runners, as a port."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fal_server.core.faults import FailedPrecondition
from fal_server.core.lifecycle import Observation
from fal_server.core.machines import Node
from fal_server.core.runners import Runner
from fal_server.engines.shim.client import ShimClient
from fal_server.engines.shim.process import ShimProcess
from fal_server.ports import Building, LaunchSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Shim:
    """A runner's shim: its process, and a client that the receiver closes."""

    process: ShimProcess
    client: ShimClient


class NodeHost(Protocol):
    """Starts shims on one machine, finds them again, and deletes their files."""

    def node(self) -> Node:
        """Describe the machine and its current trouble; called for every plan."""
        ...

    def reachable(self) -> bool:
        """Whether the machine answers; if not, `find` returns what may be there."""
        ...

    async def answers(self) -> bool:
        """Ask the machine whether it answers now. If not, it is not reachable from now on."""
        ...

    async def start(self, spec: LaunchSpec, building: Building | None = None) -> Shim:
        """Build what is missing, then start a shim and its worker. If a start was interrupted, continue it.

        Raises:
            NodeTrouble: the machine cannot start it now, which is not the app's fault; nothing is left of it.
            FailedPrecondition: its environment cannot be built, or a part of its code is missing.
            Unavailable: it could not be started; nothing is left of it.
        """
        ...

    async def find(self, runner: Runner) -> Shim | None:
        """Find a runner's living shim; its token and handle must match."""
        ...

    async def remains(self, runner: Runner) -> Shim | None:
        """Find a swept runner's dead shim, for the log that it left."""
        ...

    async def sweep(self, runner: Runner) -> None:
        """Kill a runner's processes without its shim; return once none is alive."""
        ...

    async def delete(self, runner_id: str, token: str | None = None) -> str:
        """Delete the files of a runner that has no living process.

        Args:
            token: the runner's, if it was followed; its control groups are removed, too.

        Returns:
            What the machine lacked, if something is left for a later attempt; else an empty string.
        """
        ...

    async def list(self) -> Sequence[str]:
        """List the runners that have files here."""
        ...

    async def sweep_others(self, known: Sequence[str], followed: Sequence[str]) -> None:
        """End runners that are neither known nor followed, and delete their files.

        Args:
            known: ids of runners to leave.
            followed: tokens of runners to leave; their ids are among the known ones.
        """
        ...

    def observed(self, observation: Observation) -> None:
        """Note an observation of a runner of this machine."""
        ...

    async def close(self) -> None:
        """End what waits for later runners; the runners go on."""
        ...


def missing_content(spec: LaunchSpec) -> FailedPrecondition:
    """Return the fault for a launch without stored code or files."""
    return FailedPrecondition(
        f"a part of revision {spec.revision_id}'s code or files is missing from the controller's content: "
        "deploy the app again, or put a backup back"
    )
