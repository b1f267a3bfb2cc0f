"""Send a controller random input: `python -m tests.fuzz --seconds S --seed N`. Exit with 1 if it breaks."""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.fuzz.run import Fuzzer
from tests.support.controller import running


def main() -> int:
    """Run, and print the answers; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Send nonsense to a controller.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default 60)")
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(10**6)), help="what makes the cases")
    parser.add_argument("--case", type=int, help="send this case of the seed alone")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        with running(folder / "state") as controller:
            fuzzer = Fuzzer(controller, options.seed)
            work = fuzzer.run(options.seconds) if options.case is None else fuzzer.send(options.case)
            report = asyncio.run(work)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for answer, count in sorted(report.answers.items()):
        sys.stdout.write(f"{answer:<32}{count:>9}\n")
    sys.stdout.write(f"{report.cases} cases, seed {options.seed}, memory {report.growth / 2**20:+.0f} MiB\n")
    for number, problem in report.broken.items():
        again = "" if number < 0 else f" (again: python -m tests.fuzz --seed {options.seed} --case {number})"
        sys.stdout.write(f"BROKEN{again}: {problem}\n")
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
