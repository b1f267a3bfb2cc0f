"""Deploys app files with the interpreter's package: `python deploying.py SUFFIX PATH...`.

A PATH is a file, deployed under its name with the suffix, or a project's directory with the name of its app.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fal.api import SyncServerlessClient


def main() -> None:
    """Deploy the apps one after the other. Common environments are then built once."""
    suffix, *paths = sys.argv[1:]
    client = SyncServerlessClient()
    for path in map(Path, paths):
        os.chdir(path.parent)
        if path.suffix == ".py":
            name = f"{path.stem.replace('_', '-')}-{suffix}"
            client.deploy(path.name, app_name=name, auth="public", strategy="recreate")
        else:
            client.deploy(path.name, strategy="recreate")


if __name__ == "__main__":
    main()
