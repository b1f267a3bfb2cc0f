"""`fal profile`: manages named hosts and keys in the configuration file."""

from __future__ import annotations

import argparse
import os
import sys
from typing import NamedTuple

from fal_cli.completion import complete_words, profile_names
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.interrupts import interrupts
from fal_cli.parser import FalParser, add_command, add_commands
from fal_cli.presentation.listing import Field, Listing, add_list_options, run_local_list, write_items
from fal_cli.presentation.output import print_line, print_note
from fal_cli.prompts import add_yes_option, ask, ask_secret, at_terminal, confirm


class _Profile(NamedTuple):
    name: str
    current: bool
    settings: tuple[str, ...]


PROFILES: Listing[_Profile] = Listing(
    noun="profiles",
    fields=(
        Field(title="Set", text=lambda profile: "*" if profile.current else ""),
        Field(title="Profile", text=lambda profile: profile.name),
        Field(title="Settings", text=lambda profile: ", ".join(profile.settings), folds=True),
    ),
    document=lambda profile: {
        "profile": profile.name,
        "is_set": profile.current,
        "settings": list(profile.settings),
    },
    item_name=lambda profile: profile.name,
)


def add_arguments(parser: FalParser) -> None:
    """Declare `fal profile` and its sub-commands."""
    commands = add_commands(parser)
    add_list_options(add_command(commands, "list", "List all profiles.", _list), PROFILES)
    set_parser = add_command(commands, "set", "Make a profile the current one.", _set)
    complete_words(set_parser.add_argument("profile", metavar="PROFILE", help="Profile name."), profile_names)
    add_command(commands, "unset", "Make no profile current.", _unset)
    add_command(commands, "key", "Set the key of the profile; it is asked for, or read from standard input.", _key)
    host = add_command(commands, "host", "Set the host of the profile.", _host)
    host.add_argument("address", metavar="HOST", help="Fal host, as HOST or HOST:PORT.")
    create = add_command(commands, "create", "Create a profile, and make it the current one.", _create)
    create.add_argument("profile", metavar="PROFILE", help="Profile name.")
    delete = add_command(commands, "delete", "Delete a profile.", _delete)
    add_yes_option(delete)
    complete_words(delete.add_argument("profile", metavar="PROFILE", help="Profile name."), profile_names)


def _list(args: argparse.Namespace) -> None:
    run_local_list(args, _profiles, lambda profiles: write_items(args, PROFILES, profiles))


def _profiles() -> list[_Profile]:
    from fal.config import load

    config = load()
    current = os.environ.get("FAL_PROFILE") or config.current_profile
    return [_Profile(name, name == current, tuple(settings)) for name, settings in config.profiles.items()]


def _set(args: argparse.Namespace) -> None:
    from fal.config import edit

    with interrupts.deferred(), edit() as config:
        if args.profile not in config.profiles:
            _confirm_creation(args.profile)
            config.create_profile(args.profile)
        config.set_current(args.profile)
    print_line(f"Profile '{args.profile}' is the current one.")
    _hint_key()


def _confirm_creation(name: str) -> None:
    if not at_terminal():
        raise CommandError(f"there is no profile '{name}'; `fal profile create {name}` makes one")
    if not ask(f"There is no profile '{name}'. Create it?"):
        raise CommandError("no profile was created")


def _unset(_args: argparse.Namespace) -> None:
    from fal.config import edit

    with interrupts.deferred(), edit() as config:
        config.set_current(None)
    print_line("No profile is current.")


def _key(_args: argparse.Namespace) -> None:
    from fal.api import KeyCredentials
    from fal.config import edit

    profile = _chosen()
    key = (ask_secret("Key, as id:secret: ") if sys.stdin.isatty() else sys.stdin.read()).strip()
    KeyCredentials.parse(key, source="the key")
    with interrupts.deferred(), edit() as config:
        config.set(profile, "key", key)
    print_line(f"Key set for profile '{profile}'.")


def _host(args: argparse.Namespace) -> None:
    from fal.api import parse_targets
    from fal.config import edit

    profile = _chosen()
    parse_targets(args.address, source="HOST")
    with interrupts.deferred(), edit() as config:
        config.set(profile, "host", args.address)
    print_line(f"Host of profile '{profile}' set to {args.address}.")


def _create(args: argparse.Namespace) -> None:
    from fal.config import edit

    with interrupts.deferred(), edit() as config:
        config.create_profile(args.profile)
        config.set_current(args.profile)
    print_line(f"Profile '{args.profile}' created; it is the current one.")
    _hint_key()


def _delete(args: argparse.Namespace) -> None:
    from fal.config import edit

    def removal() -> str:
        with edit() as config:
            config.require_own(args.profile)
        return f"Delete profile '{args.profile}' and its key?"

    confirm(args, removal)
    with interrupts.deferred(), edit() as config:
        config.delete_profile(args.profile)
    print_line(f"Profile '{args.profile}' deleted.")


def _chosen() -> str:
    from fal.config import load
    from fal.settings import find_profile

    profile, _ = find_profile(load(), None, os.environ)
    if profile is None:
        raise CommandError("no profile is current; choose one with `fal profile set PROFILE`", ExitCode.FAILED)
    return profile


def _hint_key() -> None:
    from fal.config import load

    config = load()
    if config.current_profile and not config.setting(config.current_profile, "key"):
        print_note("It has no key yet; `fal profile key` sets one.")
