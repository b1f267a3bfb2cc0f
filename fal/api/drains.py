"""`client.drains`: receivers that get log lines as they are written."""

# Generated from fal/api/aio/drains.py by scripts/gen_blocking.py; do not edit.

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fal_grpc.adapter.drain import LogDrain

if TYPE_CHECKING:
    from fal.api.opener import Opener


class DrainsNamespace:
    """The log drains of the account; `fal drains` on the command line. Use it as `client.drains`.

    Example:
        with SyncServerlessClient() as client:
            client.drains.create("loki", "https://loki.example/loki/api/v1/push", form="loki")
            print([(drain.name, drain.unsent_lines) for drain in client.drains.list()])
    """

    def __init__(self, client: Opener) -> None:
        self.client = client

    def create(
        self,
        name: str,
        url: str,
        *,
        form: str = "ndjson",
        apps: Sequence[str] = (),
        least_level: str | None = None,
        headers: Mapping[str, str] | None = None,
        signing_key: str | None = None,
    ) -> LogDrain:
        """Create a drain. It sends the lines from half a minute before on.

        Args:
            name: 1 to 64 of a-z, 0-9 and hyphens.
            url: an http or https URL.
            form: "ndjson", "otlp" or "loki".
            apps: only lines of these apps; empty means all.
            least_level: only lines of this level and above, such as "WARNING"; None means all.
            headers: of each delivery, such as Authorization. They cannot be read back.
            signing_key: signs deliveries with HMAC-SHA256; None does not sign. It cannot be read back.
        """
        controller = self.client.controller()
        return controller.create_drain(
            name,
            url,
            form=form,
            apps=apps,
            least_level=least_level,
            headers=headers,
            signing_key=signing_key,
        )

    def list(self) -> builtins.list[LogDrain]:
        """List the drains by name, with how far each is."""
        controller = self.client.controller()
        return controller.list_drains()

    def get(self, name: str) -> LogDrain:
        """Return a drain."""
        controller = self.client.controller()
        return controller.get_drain(name)

    def delete(self, name: str) -> None:
        """Delete a drain with its cursor."""
        controller = self.client.controller()
        controller.delete_drain(name)

    def pause(self, name: str) -> None:
        """Stop the deliveries; lines wait as long as logs are kept."""
        controller = self.client.controller()
        controller.pause_drain(name)

    def resume(self, name: str) -> None:
        """Go on after a pause, with the lines that waited."""
        controller = self.client.controller()
        controller.resume_drain(name)
