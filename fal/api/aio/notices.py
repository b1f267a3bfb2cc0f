"""`client.notices` for asyncio: who is told of problems."""

# The source of fal/api/notices.py: run `make gen` after a change.

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fal_grpc.adapter.notice import Notice

if TYPE_CHECKING:
    from fal.api.opener import AsyncOpener


class AsyncNoticesNamespace:
    """The notices of the account; `fal notices` on the command line. Use it as `client.notices`.

    Example:
        async with AsyncServerlessClient() as client:
            await client.notices.create("ops", "https://ops.example/in", thresholds={"queue-size": 50})
            print([(notice.name, notice.problems) for notice in await client.notices.list()])
    """

    def __init__(self, client: AsyncOpener) -> None:
        self.client = client

    async def create(
        self,
        name: str,
        url: str,
        *,
        form: str = "webhook",
        thresholds: Mapping[str, float] | None = None,
        apps: Sequence[str] = (),
        signing_key: str | None = None,
        to: Sequence[str] = (),
        sender: str | None = None,
        password: str | None = None,
    ) -> Notice:
        """Create a notice. It is told of the problems that exist, too.

        Args:
            name: 1 to 64 of a-z, 0-9 and hyphens.
            url: an http or https URL; for e-mail the server, such as smtp://user@host:587.
            form: "webhook", "slack" or "email".
            thresholds: by condition the value from which it is a problem, 0 for the usual one; None means all
                conditions.
            apps: only problems of these apps; empty means all.
            signing_key: signs webhooks with HMAC-SHA256; None does not sign. It cannot be read back.
            to: the addresses that get e-mail.
            sender: the address from which e-mail comes; None takes the first of `to`.
            password: for the e-mail server. It cannot be read back.
        """
        controller = await self.client.controller()
        return await controller.create_notice(
            name,
            url,
            form=form,
            thresholds=thresholds,
            apps=apps,
            signing_key=signing_key,
            to=to,
            sender=sender,
            password=password,
        )

    async def list(self) -> builtins.list[Notice]:
        """List the notices by name."""
        controller = await self.client.controller()
        return await controller.list_notices()

    async def get(self, name: str) -> Notice:
        """Return a notice, with its problems."""
        controller = await self.client.controller()
        return await controller.get_notice(name)

    async def test(self, name: str) -> None:
        """Send a test now. The error says why the receiver did not take it."""
        controller = await self.client.controller()
        await controller.test_notice(name)

    async def delete(self, name: str) -> None:
        """Delete a notice."""
        controller = await self.client.controller()
        await controller.delete_notice(name)
