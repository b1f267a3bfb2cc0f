"""What notices tell of the controller's machine: its disk and its certificate."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fal_server.composition.nodes import JoinedNodes

if TYPE_CHECKING:
    from fal_server.composition.tls import Certificates


class MachineHealth:
    """Implements the port ControllerHealth."""

    def __init__(self, directory: Path, certificates: Certificates | None, nodes: JoinedNodes) -> None:
        self._directory = directory
        self._certificates = certificates
        self._nodes = nodes

    async def disk_used_percent(self) -> float:
        # In a thread, because a network disk that is away does not answer.
        usage = await asyncio.to_thread(shutil.disk_usage, self._directory)
        return 100 * usage.used / (usage.used + usage.free) if usage.total else 0.0  # as df: without the reserved part

    def lost_nodes(self) -> Sequence[str]:
        return self._nodes.lost()

    def certificate_ends_at(self) -> datetime | None:
        return None if self._certificates is None else self._certificates.ends_at
