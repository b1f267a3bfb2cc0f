"""`fal skills`: texts that teach an agent about apps. It learns to write, deploy, debug and scale them."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from fal_cli.completion import complete_words
from fal_cli.exit_codes import CommandError
from fal_cli.options import path_type
from fal_cli.parser import FalParser, add_command, add_commands
from fal_cli.presentation.listing import Field, Listing, add_list_options, run_local_list, write_items
from fal_cli.presentation.output import print_note
from fal_cli.prompts import add_yes_option, confirm

FOLDER = Path(__file__).resolve().parent.parent / "skills"
_USUAL = Path(".agents/skills")
# Texts that are not skills: one for a project's root, one that links to all others.
OTHER = {"AGENTS.md": FOLDER / "AGENTS.md", "llms.txt": files("fal_mcp") / "llms.txt"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """A text for agents."""

    name: str
    about: str
    text: str


SKILLS: Listing[Skill] = Listing(
    noun="skills",
    fields=(
        Field(title="Name", text=lambda skill: skill.name),
        Field(title="About", text=lambda skill: skill.about, folds=True),
    ),
    document=lambda skill: {"name": skill.name, "about": skill.about},
    item_name=lambda skill: skill.name,
)


def add_arguments(parser: FalParser) -> None:
    """Declare `fal skills` and its sub-commands."""
    parser.description = "Texts that teach an agent to write, deploy, debug and scale apps with this command line."
    commands = add_commands(parser)
    listed = add_command(commands, "list", "List the skills.", _list)
    add_list_options(listed, SKILLS)
    show = add_command(commands, "show", "Print a skill, AGENTS.md or llms.txt.", _show)
    name = show.add_argument("name", help="The name of a skill, AGENTS.md or llms.txt.")
    complete_words(name, lambda: [*(skill.name for skill in skills()), *OTHER])
    show.epilog = "Examples:\n  fal skills show fal-debug\n  fal skills show AGENTS.md >> AGENTS.md"
    install = add_command(commands, "install", "Write all skills into a folder that an agent reads.", _install)
    install.add_argument(
        "directory",
        type=path_type,
        nargs="?",
        default=_USUAL,
        metavar="DIR",
        help=f"The folder (defaults to {_USUAL}); each skill gets a folder of its own in it.",
    )
    add_yes_option(install)


def skills() -> list[Skill]:
    """Return all skills, by name."""
    return [_read(path) for path in sorted(FOLDER.glob("*/SKILL.md"))]


def _read(path: Path) -> Skill:
    text = path.read_text()
    _, head, _ = text.split("---\n", 2)
    fields = dict(line.split(": ", 1) for line in head.splitlines())
    return Skill(name=fields["name"], about=fields["description"], text=text)


def _list(args: argparse.Namespace) -> None:
    run_local_list(args, skills, lambda found: write_items(args, SKILLS, found))


def _show(args: argparse.Namespace) -> None:
    if args.name in OTHER:
        text = OTHER[args.name].read_text()
    else:
        found = {skill.name: skill for skill in skills()}
        if args.name not in found:
            raise CommandError(f"there is no skill '{args.name}': use one of {', '.join([*found, *OTHER])}")
        text = found[args.name].text
    sys.stdout.write(text)


def _install(args: argparse.Namespace) -> None:
    files = {args.directory / skill.name / "SKILL.md": skill.text for skill in skills()}
    changed = [path for path, text in files.items() if path.exists() and path.read_text() != text]
    if changed:
        confirm(args, lambda: f"Replace {', '.join(str(path) for path in changed)}?")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    print_note(
        f"Wrote {len(files)} skills into {args.directory}. `fal skills show AGENTS.md` has a text for the project."
    )
