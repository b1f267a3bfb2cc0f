"""Asks a person at the terminal before something is destroyed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.interrupts import interrupts
from fal_cli.parser import FalParser
from fal_cli.presentation.printable import visible


def add_yes_option(parser: FalParser) -> None:
    """Add --yes."""
    parser.beyond(parser.add_argument("--yes", "-y", action="store_true", help="Do not ask."))


def at_terminal() -> bool:
    """Return whether a person can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(args: argparse.Namespace, question: Callable[[], str | None]) -> None:
    """Ask for confirmation at a terminal, unless --yes is given. A script is not asked.

    Args:
        args: the parsed command line.
        question: finds the object to destroy, raises if it does not exist, and returns the question; None if there is
            nothing to destroy. A script learns that from the response to its request.

    Raises:
        CommandError: the answer is not yes.
    """
    if args.yes or not at_terminal():
        return
    text = question()
    if text is not None and not ask(text):
        raise CommandError("not confirmed: nothing was changed")


def ask_secret(prompt: str) -> str:
    """Prompt for a text that the terminal does not show."""
    from getpass import getpass

    with interrupts.deferred(), interrupts.interruptible():
        return getpass(prompt)


def read_secret(prompt: str) -> str:
    """Return a text that is hidden at a terminal. Elsewhere it is standard input without its last newline."""
    if sys.stdin.isatty():
        return ask_secret(prompt)
    return sys.stdin.read().removesuffix("\n").removesuffix("\r")


def require_secret(what: str) -> str:
    """Return what `read_secret` reads.

    Args:
        what: names it, such as "signing key".

    Raises:
        CommandError: nothing was given.
    """
    value = read_secret(f"{what[0].upper()}{what[1:]}: ")
    if not value:
        raise CommandError(f"nothing was read in place of the {what}", ExitCode.USAGE)
    return value


def ask(question: str) -> bool:
    """Ask a question on standard error; return whether the answer is yes."""
    sys.stderr.write(visible(f"{question} (y/N): "))
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
