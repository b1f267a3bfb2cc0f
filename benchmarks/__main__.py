"""Run this folder's benchmarks. They are all modules with a `main()`, or those whose names contain an argument."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys

import benchmarks


def names() -> list[str]:
    """Return the names of all benchmarks. Their parts, whose names start with `_`, are left out."""
    return sorted(
        module.name for module in pkgutil.iter_modules(benchmarks.__path__) if not module.name.startswith("_")
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen benchmarks. Return 0, or 2 if no benchmark has such a name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure speed, as ratios side by side.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a part of a benchmark's name; all if none is given")
    parser.add_argument("--list", action="store_true", help="show the names and run nothing")
    wanted = parser.parse_args(arguments)
    chosen = [name for name in names() if not wanted.names or any(part in name for part in wanted.names)]
    if not chosen:
        print(f"no benchmark is called {' or '.join(wanted.names)}. Choose from {', '.join(names())}", file=sys.stderr)
        return 2
    for name in chosen:
        print(name if wanted.list else f"== {name}", flush=True)
        if not wanted.list:
            importlib.import_module(f"benchmarks.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
