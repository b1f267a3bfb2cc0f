"""Tells apps that a request on a runner is cancelled."""

from __future__ import annotations

import logging

from fal_server.core.faults import Fault
from fal_server.core.identity import EVERY_ACCOUNT
from fal_server.core.openapi import cancel_path, takes_post
from fal_server.live.catalog import Catalog
from fal_server.live.dispatch import Lease
from fal_server.ports.queue import AnswerTooLarge, RunnerClient

log = logging.getLogger(__name__)


class Cancellations:
    """Forwards cancellations, whether a caller asked for one or has left."""

    def __init__(self, catalog: Catalog, client: RunnerClient) -> None:
        self._catalog = catalog
        self._client = client

    async def tell(self, lease: Lease, request_id: str, path: str) -> None:
        """Call the app's cancellation endpoint unless its description has none.

        Args:
            path: of the request, with or without the query.
        """
        try:
            revision = await self._catalog.find_revision(EVERY_ACCOUNT, lease.slot.revision_id)
            if revision is not None and takes_post(revision.metadata, cancel_path(path)) is False:
                log.info("request %s is cancelled, but its app has no endpoint for that: it goes on", request_id)
                return
            status = await self._client.cancel(lease.address, request_id, path)
        except (Fault, AnswerTooLarge) as error:
            log.warning("the app of request %s was not told that it is cancelled: %s", request_id, error)
        else:
            log.info("request %s is cancelled; its app was told, and answered %s", request_id, status)
