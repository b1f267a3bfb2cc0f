"""Install packages for comparison below .cache, so that they are not dependencies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


def installed(name: str, *requirements: str) -> Path:
    """Install packages into a new folder, for PYTHONPATH; return the folder."""
    folder = _ROOT / ".cache" / "benchmarks" / name
    mark = folder / "installed.txt"
    wanted = "\n".join(requirements)
    if not mark.exists() or mark.read_text() != wanted:
        uv = Path(sys.executable).parent / "uv"
        subprocess.run(
            [uv, "pip", "install", "--quiet", "--python", sys.executable, "--target", folder, *requirements],
            env={**os.environ, "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(_ROOT / ".cache" / "uv"))},
            check=True,
        )
        mark.write_text(wanted)
    return folder
