"""Torture a controller and check its promises: `python -m tests.torture`. The options are `--seed N --minutes M`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from fal_runner.isolation.levels import Isolation
from tests.torture.driver import NAMES
from tests.torture.run import ENDING, Plan, run
from tests.torture.sources import KINDS

_ALONE = "TORTURE_MOUNTS"


def main() -> int:
    """Run and print the figures; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description="Torture a controller.")
    parser.add_argument(
        "--seed", default=str(random.SystemRandom().randrange(10**6)), help="what chooses; default: any"
    )
    parser.add_argument("--minutes", type=float, default=15.0, help="how long (default 15)")
    parser.add_argument("--clients", type=int, default=3, help="callers of each app (default 3)")
    parser.add_argument("--storm", type=float, default=35.0, help="seconds of faults in each round (default 35)")
    parser.add_argument(
        "--faults",
        default=",".join(NAMES),
        type=_faults,
        metavar="NAME,...",
        help=f"which may happen: {', '.join(NAMES)} (default all)",
    )
    parser.add_argument(
        "--least", type=int, default=0, help="at least so many faults in a storm, however long it takes"
    )
    parser.add_argument("--calm", type=float, default=25.0, help="seconds without, in each round (default 25)")
    parser.add_argument("--apps", type=int, default=len(KINDS), help="how many of the apps (default all)")
    parser.add_argument(
        "--isolation",
        default="process",
        choices=[level.value for level in Isolation],
        help="the level of the runners (default process)",
    )
    parser.add_argument("--keep", type=Path, help="a folder for the history and the controller's log")
    options = parser.parse_args()
    if _ALONE not in os.environ:
        become_alone(["-m", "tests.torture", *sys.argv[1:], "--seed", options.seed])
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    disk = os.environ[_ALONE] == "yes"
    if not disk:
        print("no file system can be mounted here: the disk is never full in this run")
    plan = Plan(
        seconds=options.minutes * 60,
        storm_seconds=options.storm,
        calm_seconds=options.calm,
        least_faults=options.least,
        faults=options.faults,
        clients=options.clients,
        kinds=KINDS[: options.apps],
        isolation=options.isolation,
    )
    print(f"seed {options.seed}, {options.minutes:g} minutes, in {folder}", flush=True)
    for number in ENDING:
        signal.signal(number, signal.default_int_handler)
    try:
        report = asyncio.run(run(folder, options.seed, plan, disk=disk))
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        print("interrupted: whatever ran has ended")
        return 130
    print(json.dumps(report.figures(), indent=2))
    for sentence in report.broken[:50]:
        print(f"BROKEN: {sentence}")
    kept = options.keep or folder.with_name(f"{folder.name}-history")
    if report.broken or options.keep:
        kept.mkdir(parents=True, exist_ok=True)
        for name in ("history.jsonl", "controller.log"):
            source = folder / name if (folder / name).exists() else folder / "state" / name
            shutil.copy(source, kept / name)
        print(f"history and log: {kept}")
    shutil.rmtree(folder, ignore_errors=True)
    if report.broken:
        print(f"again: {_again(options)}")
    return 1 if report.broken else 0


def _again(options: argparse.Namespace) -> str:
    """Return the command that repeats this run."""
    names = ("seed", "minutes", "storm", "least", "calm", "apps", "clients", "isolation")
    given = [word for name in names for word in (f"--{name}", str(getattr(options, name)))]
    return shlex.join(["python", "-m", "tests.torture", *given, "--faults", ",".join(options.faults)])


def _faults(text: str) -> tuple[str, ...]:
    chosen = tuple(filter(None, (name.strip() for name in text.split(","))))
    if unknown := sorted(set(chosen) - set(NAMES)):
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is no fault; use some of {', '.join(NAMES)}")
    return chosen


def become_alone(arguments: list[str]) -> NoReturn:
    """Restart Python in a new mount namespace. If that is impossible, do it without one.

    This replaces the process: a waiting parent would kill the run when Ctrl-C reaches both, before runners are ended.
    """
    for flags in (["-m"], ["-U", "-r", "-m"]):
        alone = ["unshare", *flags, "--propagation", "private"]
        if (
            shutil.which("unshare")
            and subprocess.run([*alone, "true"], capture_output=True, check=False).returncode == 0
        ):
            os.execvpe("unshare", [*alone, sys.executable, *arguments], {**os.environ, _ALONE: "yes"})
    os.execve(sys.executable, [sys.executable, *arguments], {**os.environ, _ALONE: "no"})


if __name__ == "__main__":
    sys.exit(main())
