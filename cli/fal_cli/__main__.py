"""The program `fal`, also as `python -m fal_cli`."""

from __future__ import annotations

import sys

from fal_cli.interrupts import interrupt_exit


def main() -> int:
    """Run `fal` with the arguments of the process."""
    interrupt_exit.arm()
    from fal_cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
