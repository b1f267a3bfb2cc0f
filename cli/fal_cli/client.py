"""Opens the SDK's client for a command, with what its flags say. The SDK is imported here, for a call."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal.api import SyncServerlessClient


def open_client(args: argparse.Namespace) -> SyncServerlessClient:
    """Return the client that --host, --team, the environment and the profile ask for; close it, or use `with`."""
    from fal.api import SyncServerlessClient

    return SyncServerlessClient(host=args.host, team=args.team)
