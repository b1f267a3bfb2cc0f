"""Measures speed as ratios within one run. `python -m benchmarks [NAME...]` runs all or some."""

import os

# What is installed keeps its bytecode, so what is measured here keeps it, too.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
