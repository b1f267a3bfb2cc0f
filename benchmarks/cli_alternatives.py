"""Measure one command line with argparse, click and typer, beside `fal`. Each is a whole process.

Each has ten groups of six commands with four options, and parses one of them. `fal` imports only the named command.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks._packages import installed

_ROUNDS = 15
_ARGUMENTS = ["group3", "command4", "name", "--count", "2"]
_ARGPARSE = """
import argparse
parser = argparse.ArgumentParser()
groups = parser.add_subparsers()
for group in range(10):
    commands = groups.add_parser(f"group{group}", help="a group").add_subparsers()
    for number in range(6):
        command = commands.add_parser(f"command{number}", help="a command")
        command.add_argument("name")
        command.add_argument("--count", type=int, default=1, help="how many")
        command.add_argument("--output", choices=["pretty", "json"], default="pretty", help="the form")
        command.add_argument("--verbose", action="store_true", help="say more")
        command.add_argument("--since", help="from when")
assert parser.parse_args().count == 2
"""
_CLICK = """
import click
@click.group()
def main(): pass
def made(count, name, output, verbose, since): assert count == 2
for group in range(10):
    commands = click.Group(f"group{group}", help="a group")
    main.add_command(commands)
    for number in range(6):
        options = [
            click.Argument(["name"]),
            click.Option(["--count"], type=int, default=1, help="how many"),
            click.Option(["--output"], type=click.Choice(["pretty", "json"]), default="pretty", help="the form"),
            click.Option(["--verbose"], is_flag=True, help="say more"),
            click.Option(["--since"], help="from when"),
        ]
        commands.add_command(click.Command(f"command{number}", params=options, callback=made, help="a command"))
main()
"""
_TYPER = """
import enum
import typer
class Form(str, enum.Enum):
    pretty = "pretty"
    json = "json"
main = typer.Typer()
def made(
    name: str,
    count: int = typer.Option(1, help="how many"),
    output: Form = typer.Option(Form.pretty, help="the form"),
    verbose: bool = typer.Option(False, help="say more"),
    since: str = typer.Option("", help="from when"),
):
    assert count == 2
for group in range(10):
    commands = typer.Typer(help="a group")
    main.add_typer(commands, name=f"group{group}")
    for number in range(6):
        commands.command(f"command{number}", help="a command")(made)
main()
"""


def main() -> None:
    """Measure and print a table."""
    packages = installed("typer", "click==8.3.1", "typer==0.20.0")
    fal = str(Path(sys.executable).with_name("fal"))
    commands = {
        "python": [sys.executable, "-c", "pass"],
        "argparse": [sys.executable, "-c", _ARGPARSE, *_ARGUMENTS],
        "click": [sys.executable, "-c", _CLICK, *_ARGUMENTS],
        "typer": [sys.executable, "-c", _TYPER, *_ARGUMENTS],
        "fal runners stop --help": [fal, "runners", "stop", "--help"],
    }
    # Let Python write compiled files, as for users.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment = {**kept, "PYTHONPATH": str(packages)}
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(_ROUNDS + 1):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
            if number:  # the first round fills the file cache
                taken[name].append((time.perf_counter() - start) * 1000)
    floor = min(taken["python"])
    print(f"{'':26}{'median ms':>11}{'least ms':>11}{'least above python':>20}")
    for name, times in taken.items():
        print(f"{name:26}{statistics.median(times):>11.0f}{min(times):>11.0f}{min(times) - floor:>20.0f}")


if __name__ == "__main__":
    main()
