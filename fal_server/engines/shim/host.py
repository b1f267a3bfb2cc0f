"""What the engine asks of a machine on which it runs runners, whichever that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fal_server.core.lifecycle import Observation
from fal_server.core.machines import Node
from fal_server.core.runners import Runner
from fal_server.engines.shim.client import ShimClient
from fal_server.engines.shim.process import ShimProcess
from fal_server.ports import Building, LaunchSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Shim:
    """One runner's shim: its process, and a client that the receiver closes."""

    process: ShimProcess
    client: ShimClient


class NodeHost(Protocol):
    """Starts shims on one machine, finds them again, and deletes what they leave."""

    def node(self) -> Node:
        """Describe the machine, and what is wrong with it now; every plan asks."""
        ...

    async def start(self, spec: LaunchSpec, building: Building | None = None) -> Shim:
        """Build what is missing, and start a shim and its worker, or use one that was left half way.

        Raises:
            NodeTrouble: the machine cannot start it now, and the app is not to blame; nothing is left of it.
            FailedPrecondition: its environment cannot be built, or a part of its code is missing.
            Unavailable: it could not be started; nothing is left of it.
        """
        ...

    async def find(self, runner: Runner) -> Shim | None:
        """Find a runner's living shim: token and handle must agree, or it is not the runner's."""
        ...

    async def remains(self, runner: Runner) -> Shim | None:
        """Find the dead shim of a runner that was swept, for the log that it left."""
        ...

    async def sweep(self, runner: Runner) -> None:
        """Kill everything of a runner, without its shim; return once nothing of it is alive."""
        ...

    async def delete(self, runner_id: str, token: str | None = None) -> str:
        """Delete what is kept for a runner of which nothing is alive.

        Args:
            token: the runner's, if it was followed, so that its control groups go too.

        Returns:
            What the machine lacked, so that a later try may delete the rest; empty if nothing is left.
        """
        ...

    async def list(self) -> Sequence[str]:
        """List the runners that have something here."""
        ...

    async def sweep_others(self, known: Sequence[str], followed: Sequence[str]) -> None:
        """End and delete everything of runners that are neither known nor followed.

        Args:
            known: ids of runners to leave.
            followed: tokens of runners to leave; their ids are among the known ones.
        """
        ...

    def observed(self, observation: Observation) -> None:
        """Note what happened to a runner of this machine."""
        ...

    async def close(self) -> None:
        """End what the host keeps for later runners; the runners go on."""
        ...
