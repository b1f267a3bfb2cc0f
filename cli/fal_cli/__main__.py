"""`python -m fal_cli` is the same as `fal`."""

from __future__ import annotations

import sys

from fal_cli.main import main

if __name__ == "__main__":
    sys.exit(main())
