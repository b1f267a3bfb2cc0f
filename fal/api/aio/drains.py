"""`client.drains` for asyncio: receivers that get log lines as they are written."""

# The source of fal/api/drains.py: run `make gen` after a change.

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fal_grpc.adapter.drain import LogDrain

if TYPE_CHECKING:
    from fal.api.opener import AsyncOpener


class AsyncDrainsNamespace:
    """The log drains of the account; `fal drains` on the command line. Use it as `client.drains`.

    Example:
        async with AsyncServerlessClient() as client:
            await client.drains.create("loki", "https://loki.example/loki/api/v1/push", form="loki")
            print([(drain.name, drain.unsent_lines) for drain in await client.drains.list()])
    """

    def __init__(self, client: AsyncOpener) -> None:
        self.client = client

    async def create(
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
        controller = await self.client.controller()
        return await controller.create_drain(
            name,
            url,
            form=form,
            apps=apps,
            least_level=least_level,
            headers=headers,
            signing_key=signing_key,
        )

    async def list(self) -> builtins.list[LogDrain]:
        """List the drains by name, with how far each is."""
        controller = await self.client.controller()
        return await controller.list_drains()

    async def get(self, name: str) -> LogDrain:
        """Return a drain."""
        controller = await self.client.controller()
        return await controller.get_drain(name)

    async def delete(self, name: str) -> None:
        """Delete a drain with its cursor."""
        controller = await self.client.controller()
        await controller.delete_drain(name)

    async def pause(self, name: str) -> None:
        """Stop the deliveries; lines wait as long as logs are kept."""
        controller = await self.client.controller()
        await controller.pause_drain(name)

    async def resume(self, name: str) -> None:
        """Go on after a pause, with the lines that waited."""
        controller = await self.client.controller()
        await controller.resume_drain(name)
