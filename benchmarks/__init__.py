"""Speed, measured as ratios taken side by side in one run. `python -m benchmarks [NAME...]` runs all or some."""
