"""The version that `fal --version` prints, as a constant: reading the package's metadata costs more than the whole
command should. A test holds it equal to the metadata."""

from __future__ import annotations

VERSION = "0.1.0"
