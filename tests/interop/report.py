"""Write docs/reference/compatibility.md from the official packages' last run. `--check` only compares.

Run by `make compatibility` and `make test-interop`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping

from tests.interop.commands import DIFFERENCES, FAL, FAL_CLIENT, JAVASCRIPT, SDK, Command
from tests.interop.records import RECORDS, ROOT
from tests.interop.surface_rows import MODULES, ROWS

PAGE = ROOT / "docs" / "reference" / "compatibility.md"
NEXT = "run `make test-interop`, then `make compatibility`, and commit the page"

HEAD = """# The official packages with this controller

<!-- Made by `make compatibility` from the results of `make test-interop`. Change tests/interop/commands.py instead. -->

The packages from PyPI run against a controller of this project: {packages}.
A row says `works` if every test that uses the command passed. `fal env` prints the variables that point them at a
controller.
"""

CALLS = """\
A function of `fal.function` runs in a runner when it is called, as in the published package; `func` runs here.
Its log lines go to standard error. Its file is imported again, by the client and by the runner: a call outside of
`if __name__ == "__main__":` in that file is refused. An exception is raised as what it is if its class is in the
function's file or was imported here, else as `UserFunctionError`: no code of the runner is run here. The published
package raises `UserFunctionException` for every exception; its text has the exception's.
"""


def packages() -> str:
    """Return the versions under test, from the lock file."""
    lock = (ROOT / "requirements" / "interop.txt").read_text()
    found = re.findall(r"^(fal|fal-client|isolate-proto)==([^ ;\\]+)", lock, re.MULTILINE)
    return ", ".join(f"`{name}` {version}" for name, version in found)


def outcome(command: Command, seen: Mapping[str, bool]) -> str:
    """Return the outcome of a command, in a few words."""
    if command.cannot:
        return "cannot work"
    if command.unseen:
        return "not tried"
    if command.name not in seen and not command.elsewhere:
        return "not yet"
    if not seen.get(command.name, True):
        return "fails"
    return "works, with a remark" if command.remark else "works"


def table(title: str, prefix: str, commands: Iterable[Command], seen: Mapping[str, bool]) -> list[str]:
    """Return one section of the page."""
    rows = [
        f"| `{prefix}{each.name}` | {outcome(each, seen)} | {each.cannot or each.unseen or each.remark} |"
        for each in commands
    ]
    return [f"## {title}", "", "| command | outcome | remark |", "|---|---|---|", *rows, ""]


def page(seen: Mapping[str, bool]) -> str:
    """Return the whole page.

    Raises:
        KeyError: tests cover commands that no table has.
    """
    unlisted = (
        set(seen) - {command.name for command in (*FAL, *SDK, *FAL_CLIENT, *JAVASCRIPT)} - {"same requests", "surface"}
    )
    if unlisted:
        raise KeyError(f"tests/interop/commands.py does not list {sorted(unlisted)}")
    lines = [
        HEAD.format(packages=packages()),
        *table("The `fal` command", "fal ", FAL, seen),
        *table("The SDK, `fal.api`", "", SDK, seen),
        *table("`fal_client`, over TLS", "fal_client.", FAL_CLIENT, seen),
        *table("`@fal-ai/client`, by `proxyUrl`", "", JAVASCRIPT, seen),
        "## The other way round",
        "",
        "The `fal` command of this project sends what the official one sends. A test lets both send each command to",
        "the same recording controller, made from isolate-proto's own service, and compares field by field. Apart from",
        "pickled bytes and pinned versions, these differ:",
        "",
        *(f"- {known.what} {known.why}" for known in DIFFERENCES),
        "",
        *surface(),
    ]
    return "\n".join(lines)


def surface() -> list[str]:
    """Return the section on imports."""
    rows = [f"| `{row.module}` | {', '.join(f'`{name}`' for name in row.names)} | {row.reason} |" for row in ROWS]
    return [
        "## What programs import",
        "",
        f"A test compares {len(MODULES)} modules of the published package with ours: the names that they define, the",
        "parameters and defaults of functions and methods, the fields and attributes of classes. A program finds all",
        "of them here, but for these (`*` stands for any text):",
        "",
        "| module | names | why, and what to use |",
        "|---|---|---|",
        *rows,
        "",
        *CALLS.splitlines(),
        "",
    ]


def main() -> None:
    """Write the page, or report how it differs."""
    if not RECORDS.exists():
        sys.exit(f"there is no record of a run: {NEXT}")
    made = page(json.loads(RECORDS.read_text()))
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(made)
        print(f"wrote {PAGE.relative_to(ROOT)}")
    elif not PAGE.exists() or PAGE.read_text() != made:
        sys.exit(f"docs/reference/compatibility.md differs from the results of this run: {NEXT}")


if __name__ == "__main__":
    main()
