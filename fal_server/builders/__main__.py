"""Print which container engine works on this machine, as JSON: `python -m fal_server.builders DIRECTORY`.

`fal doctor` runs it, because the command line does not import the server.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from fal_server.builders.engine_trials import EngineTrials


def main() -> int:
    """Print the finding; DIRECTORY is where a controller keeps it."""
    finding = asyncio.run(EngineTrials(os.environ, Path(sys.argv[1])).look())
    found = {"works": finding.engine is not None, "detail": finding.detail, "fix": finding.fix.strip()}
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
