"""The number of GPUs of living runners, by app and machine type."""

from __future__ import annotations

from collections.abc import Mapping

from fal_server.core.identity import Scope
from fal_server.core.machines import MachineTypes
from fal_server.core.runners import NO_PROCESS
from fal_server.live.catalog import Catalog
from fal_server.live.fleet import Fleet


class Gpus:
    """Counts the GPUs of living runners.

    Args:
        machine_types: the types that runners can have.
    """

    def __init__(self, fleet: Fleet, catalog: Catalog, machine_types: MachineTypes) -> None:
        self._machine_types = machine_types
        self._fleet = fleet
        self._catalog = catalog

    def gpus_by_app(self, scope: Scope) -> Mapping[str, Mapping[str, int]]:
        """Return the number of GPUs of each app's living runners, by GPU.

        A CPU machine type counts its runners instead, which published clients exclude from their sums.
        """
        found: dict[str, dict[str, int]] = {app.name: {} for app in self._catalog.apps if app.account == scope.account}
        for runner in self._fleet.of_account(scope.account):
            if runner.ended or runner.state in NO_PROCESS:
                continue
            revision = self._catalog.known_revision(runner.revision_id)
            held = self._machine_types.resources_of(runner.machine_type, revision.num_gpus if revision else None).gpus
            counts = found.setdefault(runner.app_name, {})
            for name, count in (held or {runner.machine_type.upper(): 1}).items():
                counts[name] = counts.get(name, 0) + count
        return found
