"""Declares and runs `fal doctor`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fal_cli.commands.doctor.check import Check, Status
from fal_cli.commands.doctor.client import check_installation, check_settings, find_settings, versions
from fal_cli.commands.doctor.machine import check_machine
from fal_cli.controller_process import add_state_dir_option
from fal_cli.exit_codes import ExitCode
from fal_cli.options import add_output_options, path_type
from fal_cli.parser import FalParser
from fal_cli.presentation.output import fitted, print_note, write_document
from fal_cli.presentation.printable import visible
from fal_cli.presentation.style import paint, wants_color

_MARKS = {Status.OK: ("✓", "green"), Status.NOTE: ("!", "yellow"), Status.PROBLEM: ("✗", "red")}
_PLAIN_MARKS = {Status.OK: "ok", Status.NOTE: "!!", Status.PROBLEM: "NO"}
_EPILOG = """\
Examples:
  fal doctor
  fal doctor --bundle report.tar.gz    collects the same and the controller's log, without keys and secrets"""


def add_arguments(parser: FalParser) -> None:
    """Declare `fal doctor`."""
    parser.description = (
        "Check this machine, the settings and the controller, and say what to do. Exits with 1 if there is a problem."
    )
    parser.epilog = _EPILOG
    add_state_dir_option(parser)
    parser.set_defaults(state_dir=None)
    parser.beyond(
        parser.add_argument(
            "--bundle",
            type=path_type,
            metavar="FILE",
            help="Write a report for others to FILE, a .tar.gz without secrets.",
        )
    )
    add_output_options(parser)
    parser.set_defaults(handler=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    settings = find_settings()
    state_dir = args.state_dir or Path(str(settings["state directory"]))
    checks = [*check_installation(), *check_settings(settings), *check_machine(state_dir)]
    healthy = all(check.status is not Status.PROBLEM for check in checks)
    document: dict[str, object] = {
        "healthy": healthy,
        "checks": [
            {"name": check.name, "status": check.status.value, "detail": check.detail, "fix": check.fix}
            for check in checks
        ],
        **versions(),
        **settings,
    }
    if args.output == "pretty":
        for check in checks:
            _write(check)
    else:
        write_document(args.output, document)
    if args.bundle is not None:
        from fal_cli.commands.doctor.bundle import write_bundle

        names = write_bundle(args.bundle, document, state_dir)
        print_note(
            f"Wrote {args.bundle}: {', '.join(names)}.\n"
            "Keys and secrets are masked; look it through before you share it."
        )
    return ExitCode.OK if healthy else ExitCode.FAILED


def _write(check: Check) -> None:
    mark, style = _MARKS[check.status]
    if not (sys.stdout.encoding or "").lower().startswith("utf"):
        mark = _PLAIN_MARKS[check.status]
    # Indent the whole text, so that continuation lines align with its start; then put the mark in front.
    indent = " " * (len(mark) + 1)
    lines = visible(f"{indent}{check.name}: {check.detail}" + (f"\n    {check.fix}" if check.fix else ""))
    text = fitted(lines, sys.stdout).removeprefix(indent)
    sys.stdout.write(f"{paint(mark, style, color=wants_color(sys.stdout))} {text}\n")
