"""Builds what has a Ray cluster decide where runners start."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from fal_server.composition.execution import Execution
from fal_server.composition.live import LiveState
from fal_server.composition.ownership import Ownership
from fal_server.composition.settings import Settings
from fal_server.ports import Clock

if TYPE_CHECKING:
    from fal_server.engines.ray.placer import RayPlacer


def build_ray(
    *, settings: Settings, live: LiveState, execution: Execution, ownership: Ownership | None, clock: Clock
) -> RayPlacer | None:
    """Build the placer; None if the controller decides itself. It waits until it is opened."""
    if settings.engine != "ray":
        return None
    # Here, because few controllers have a cluster.
    from fal_server.engines.ray.placer import RayPlacer
    from fal_server.engines.ray.process import RayProcess

    return RayPlacer(
        RayProcess(settings.ray_python or sys.executable, settings.ray_address),
        address=settings.ray_address,
        machine_types=settings.machine_types,
        nodes=execution.engine.nodes,
        addresses=execution.nodes.names,
        runners=lambda: live.fleet.runners,
        may_act=(lambda: True) if ownership is None else ownership.may_place,
        changed=live.changed.notify,
        now=clock.now,
        grows_seconds=settings.engine_grows_seconds,
    )


async def open_ray(placer: RayPlacer, execution: Execution, stack: AsyncExitStack) -> None:
    """Start to reserve. The stack ends that, after it lets go what no runner needs any more."""
    placer.open(await execution.nodes.authority_id())
    stack.push_async_callback(placer.close)
