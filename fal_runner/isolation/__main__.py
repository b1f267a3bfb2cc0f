"""Write which level of isolation works on this machine, as JSON: `python -m fal_runner.isolation`."""

from __future__ import annotations

import json
import sys

from fal_runner.isolation.trial import strongest


def main() -> int:
    """Write the strongest level, and why no stronger one works."""
    level, why = strongest()
    sys.stdout.write(json.dumps({"level": level.value, "meaning": level.meaning, "why": why}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
