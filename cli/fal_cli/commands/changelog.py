"""`fal changelog`: shows the user-visible changes of each version."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from fal_cli.completion import complete_words
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.parser import FalParser

_HEADING = re.compile(r"^## \[([^\]]+)\]", re.MULTILINE)
_PACKAGE = Path(__file__).resolve().parent.parent
# In a wheel, and beside the sources of an editable installation.
_PLACES = (_PACKAGE / "CHANGELOG.md", _PACKAGE.parent.parent / "CHANGELOG.md")
_EPILOG = """\
Examples:
  fal changelog                  what is new in the newest version
  fal changelog --since 0.1.0    what is new since version 0.1.0"""


def add_arguments(parser: FalParser) -> None:
    """Declare `fal changelog`."""
    parser.description = "Show the changes of the newest version, or of all versions after another one."
    parser.epilog = _EPILOG
    since = parser.add_argument("--since", metavar="VERSION", help="Show all versions after this one.")
    complete_words(since, lambda: [version for version, _ in sections(read())])
    parser.set_defaults(handler=_changelog)


def _changelog(args: argparse.Namespace) -> None:
    found = sections(read())
    if args.since is None:
        shown = found[:1]
    else:
        known = [version for version, _ in found]
        version = args.since.removeprefix("v")
        if version not in known:
            raise CommandError(
                f"there is no version {args.since}: the changelog has {', '.join(known)}", ExitCode.USAGE
            )
        shown = found[: known.index(version)]
    sys.stdout.write("\n\n".join(text for _, text in shown) + "\n" if shown else "Nothing is newer.\n")


def read() -> str:
    """Return the changelog.

    Raises:
        CommandError: this installation has none.
    """
    for place in _PLACES:
        if place.is_file():
            return place.read_text()
    raise CommandError("this installation has no changelog: install fal-grpc again")


def sections(text: str) -> list[tuple[str, str]]:
    """Return the versions of a changelog with their texts, newest first. Empty ones are left out."""
    starts = list(_HEADING.finditer(text))
    ends = [*(start.start() for start in starts[1:]), len(text)]
    found = [(start[1], text[start.start() : end].strip()) for start, end in zip(starts, ends, strict=True)]
    return [(version, section) for version, section in found if len(section.splitlines()) > 1]
