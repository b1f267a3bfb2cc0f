"""Keeps earlier controllers out of a node. Such a one was frozen, or runs on an old copy of the database."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from fal_server.core.faults import Unavailable
from fal_server.engines.node.identity import write_whole
from fal_server.engines.remote.epoch import Epoch

log = logging.getLogger(__name__)


class Fence:
    """Knows the latest epoch of which this node had a connection.

    Args:
        path: where it is kept.

    Attributes:
        latest: None until a controller came.

    Raises:
        Unavailable: what is kept there cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.latest: Epoch | None = None
        try:
            found = json.loads(path.read_text())
            self.latest = Epoch(number=int(found["number"]), holder=str(found["holder"]))
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Unavailable(f"which controller this node obeys cannot be read in {path}: {error}") from error

    def admits(self, epoch: Epoch) -> bool:
        """Return whether an epoch's connections are let in. A later epoch is kept before they are.

        Of two starts with one number the first that came stays: a copy of a database is no successor.

        Raises:
            OSError: the disk does not keep it.
        """
        if epoch == self.latest:
            return True
        if self.latest is not None and epoch.number <= self.latest.number:
            return False
        write_whole(self._path, json.dumps({"number": epoch.number, "holder": epoch.holder}).encode())
        log.info("this node takes orders of epoch %s now, and of none before it", epoch)
        self.latest = epoch
        return True

    def forget(self) -> None:
        """Start again, because another controller has joined this node. That one counts for itself."""
        self._path.unlink(missing_ok=True)
        self.latest = None
