"""`client.environments`: separate sets of apps and secrets. Examples are "main" and "staging"."""

# Generated from fal/api/aio/environments.py by scripts/gen_blocking.py; do not edit.

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING

from fal_grpc.adapter.environment import EnvironmentInfo

if TYPE_CHECKING:
    from fal.api.opener import Opener


class EnvironmentsNamespace:
    """The environments; `fal environments` on the command line. Use it as `client.environments`.

    Example:
        with SyncServerlessClient() as client:
            client.environments.create("staging", description="tried here before it goes live")
    """

    def __init__(self, client: Opener) -> None:
        self.client = client

    def create(self, name: str, description: str | None = None) -> EnvironmentInfo:
        """Create an environment without apps or secrets.

        Args:
            name: lower-case letters, digits and hyphens.
            description: the environment's purpose.
        """
        controller = self.client.controller()
        return controller.create_environment(name, description=description)

    def list(self) -> builtins.list[EnvironmentInfo]:
        """List all environments."""
        controller = self.client.controller()
        return controller.list_environments()

    def delete(self, name: str) -> None:
        """Delete an environment and its secrets; it must have no apps."""
        controller = self.client.controller()
        controller.delete_environment(name)
