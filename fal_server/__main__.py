"""`python -m fal_server`."""

from __future__ import annotations

import gc
import sys

if __name__ == "__main__":
    # Imports drop almost nothing, so each collection would look at all modules for nothing: a sixth of their CPU time.
    gc.disable()
    from fal_server.composition.main import main

    # The first collection would look at them all, too: a tenth of the start.
    gc.freeze()
    gc.enable()
    sys.exit(main())
