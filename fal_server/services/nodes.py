"""Lists nodes: their resources, the reserved part, and the GPUs' holders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from fal_server.core.faults import InvalidArgument
from fal_server.core.gpus import Gpu
from fal_server.core.identity import Scope
from fal_server.core.machines import MachineType, MachineTypes, Node
from fal_server.core.placement import held_gpus
from fal_server.core.runners import NO_PROCESS, Runner
from fal_server.live.fleet import Fleet


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuView:
    """A GPU and its holder.

    Attributes:
        held: whether a runner holds it.
        runner: that runner, if it belongs to the caller's account.
    """

    gpu: Gpu
    held: bool
    runner: Runner | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """A node with its current state."""

    node: Node
    reserved_mib: int
    gpus: Sequence[GpuView]


class Nodes:
    """The use cases of nodes.

    Args:
        nodes: returns the nodes in their current state.
        machine_types: the types that runners can have.
    """

    def __init__(self, fleet: Fleet, nodes: Callable[[], Sequence[Node]], machine_types: MachineTypes) -> None:
        self._fleet = fleet
        self._nodes = nodes
        self._machine_types = machine_types

    @property
    def machine_types(self) -> Iterable[MachineType]:
        """The described machine types, the usual ones first."""
        return self._machine_types.named.values()

    def regions(self) -> dict[str, str]:
        """Return the regions of the nodes that have one, by name."""
        return {node.name: node.region for node in self._nodes() if node.region}

    async def list(self, scope: Scope) -> Sequence[NodeView]:
        """Return the nodes by name. Runners of other accounts count, but are not named."""
        held = held_gpus(self._fleet.runners)
        return [
            NodeView(
                node=node,
                reserved_mib=sum(self._reserved(runner) for runner in self._fleet.runners if runner.node == node.name),
                gpus=[_gpu(gpu, held.get(node.name, {}).get(gpu.id), scope) for gpu in node.gpus],
            )
            for node in sorted(self._nodes(), key=lambda node: node.name)
        ]

    def _reserved(self, runner: Runner) -> int:
        if runner.state in NO_PROCESS or runner.ended:
            return 0
        try:
            return self._machine_types.resources_of(runner.machine_type).memory_mib
        except InvalidArgument:  # a removed type
            return 0


def _gpu(gpu: Gpu, holder: Runner | None, scope: Scope) -> GpuView:
    own = holder if holder is not None and holder.account == scope.account else None
    return GpuView(gpu=gpu, held=holder is not None, runner=own)
