"""`python -m fal_server`."""

from __future__ import annotations

import sys

from fal_server.composition.main import main

if __name__ == "__main__":
    sys.exit(main())
