"""`fal teams`: lists and creates accounts. It also shows and changes their members and quotas."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, NamedTuple

from fal_cli.completion import complete_ids
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.ids import TEAMS as TEAM_NAMES
from fal_cli.options import add_client_options, add_output_options, open_client
from fal_cli.parser import FalParser, add_command, add_commands
from fal_cli.presentation.listing import Field, Listing, add_list_options, run_list, time_field, write_items
from fal_cli.presentation.output import print_note, shown_bytes, write_document
from fal_cli.presentation.quotas import QUOTAS_BY_NAME, shown_amount
from fal_cli.prompts import add_yes_option, confirm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fal.api import AccountInfo, SyncServerlessClient, TeamMember

_ROLES = ("owner", "admin", "developer", "viewer")
_CREATE_EPILOG = """\
Only the owner of the controller may: with the key of `fal up`.

Examples:
  fal teams create crew
  fal teams create alice --user --name 'Alice Liddell'"""
_DELETE_EPILOG = """\
Only the owner of the controller may: with the key of `fal up`. Whatever runs for the account ends at once; its apps,
keys, secrets, requests, logs and files are removed. This cannot be undone."""
_QUOTAS_EPILOG = """\
The owner of the controller sets them: with the key of `fal up`. A quota is a number, with K, M, G or T after it if it
counts bytes, or `none`.

Examples:
  fal teams quotas
  fal teams quotas crew --runners 4 --data-bytes 200G
  fal teams quotas crew --requests-per-second none"""
_COUNTED = {"runners": "runner", "queued_requests": "queued request"}
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_MOST_DIGITS = 12
_CHOSEN = "`--team NAME` acts for a team with a login token (`fal auth token`); a key acts for its own account alone"


class Row(NamedTuple):
    """An account, and whether calls act for it."""

    account: AccountInfo
    selected: bool


# A document has the published client's keys, plus role.
TEAMS: Listing[Row] = Listing(
    noun="teams",
    fields=(
        Field(title="Nickname", text=lambda row: row.account.nickname),
        Field(title="Name", text=lambda row: row.account.full_name, folds=True),
        Field(title="Type", text=lambda row: row.account.kind.value),
        Field(title="Your Role", text=lambda row: row.account.role.value if row.account.role else "-"),
        Field(title="In Use", text=lambda row: "yes" if row.selected else ""),
    ),
    document=lambda row: {
        "nickname": row.account.nickname,
        "full_name": row.account.full_name,
        "type": "personal" if row.account.kind == "user" else row.account.kind.value,
        "is_selected": row.selected,
        "role": row.account.role.value if row.account.role else None,
    },
    item_name=lambda row: row.account.nickname,
)
MEMBERS: Listing[TeamMember] = Listing(
    noun="members",
    fields=(
        Field(title="User", text=lambda member: member.user),
        Field(title="Role", text=lambda member: member.role.value),
        time_field("Added At", lambda member: member.added_at),
    ),
    document=lambda member: {
        "user": member.user,
        "role": member.role.value,
        "added_at": member.added_at.isoformat(),
    },
    item_name=lambda member: member.user,
)


class Quota(NamedTuple):
    """One quota of an account; `used` is None for a rate."""

    name: str
    bound: int
    used: int | None


QUOTAS: Listing[Quota] = Listing(
    noun="quotas",
    fields=(
        Field(title="Quota", text=lambda quota: quota.name),
        Field(
            title="Bound",
            text=lambda quota: shown_amount(quota.name, quota.bound) if quota.bound else "none",
            right=True,
        ),
        Field(
            title="Used",
            text=lambda quota: "" if quota.used is None else shown_amount(quota.name, quota.used),
            right=True,
        ),
    ),
    document=lambda quota: quota._asdict(),
    item_name=lambda quota: quota.name,
)


def add_arguments(parser: FalParser) -> None:
    """Declare `fal teams` and its sub-commands."""
    parser.hint(dict.fromkeys(("set", "unset"), _CHOSEN))
    commands = add_commands(parser)
    list_parser = add_command(commands, "list", "List your account, and the teams that you are a member of.", _list)
    add_client_options(list_parser)
    list_parser.beyond(
        list_parser.add_argument(
            "--all", action="store_true", help="List all accounts, as the owner of the controller alone may."
        )
    )
    add_list_options(list_parser, TEAMS)
    create = add_command(commands, "create", "Create an account with its first key.", _create, epilog=_CREATE_EPILOG)
    add_client_options(create)
    create.add_argument("nickname", help="The first part of the paths of its apps.")
    create.add_argument("--user", action="store_true", help="An account of one person, in place of a team.")
    create.add_argument("--name", metavar="NAME", help="Its name for people (defaults to the nickname).")
    add_output_options(create)
    members = add_command(commands, "members", "List the members of a team.", _members)
    add_client_options(members)
    complete_ids(members.add_argument("nickname", metavar="TEAM", help="The team."), TEAM_NAMES)
    add_list_options(members, MEMBERS)
    add = add_command(commands, "add", "Add a user to a team, or give a member another role.", _add)
    add_client_options(add)
    complete_ids(add.add_argument("nickname", metavar="TEAM", help="The team."), TEAM_NAMES)
    add.add_argument("user", metavar="USER", help="The nickname of the user's account.")
    add.add_argument(
        "--role", choices=_ROLES, default="developer", help="What the user may do for it (defaults to %(default)s)."
    )
    remove = add_command(commands, "remove", "Remove a user from a team.", _remove)
    add_client_options(remove)
    add_yes_option(remove)
    complete_ids(remove.add_argument("nickname", metavar="TEAM", help="The team."), TEAM_NAMES)
    remove.add_argument("user", metavar="USER", help="The nickname of the user's account.")
    rename = add_command(commands, "rename", "Give an account another nickname.", _rename)
    add_client_options(rename)
    add_yes_option(rename)
    complete_ids(rename.add_argument("nickname", metavar="ACCOUNT", help="The account."), TEAM_NAMES)
    rename.add_argument(
        "new_nickname", metavar="NICKNAME", help="The first part of the paths of its apps from then on."
    )
    rename.add_argument("--name", metavar="NAME", help="Its name for people (stays, unless it was the nickname).")
    delete = add_command(commands, "delete", "Delete an account with everything in it.", _delete, epilog=_DELETE_EPILOG)
    add_client_options(delete)
    add_yes_option(delete)
    complete_ids(delete.add_argument("nickname", metavar="ACCOUNT", help="The account."), TEAM_NAMES)
    quotas = add_command(
        commands,
        "quotas",
        "Show the quotas and the usage of an account, or set its quotas.",
        _quotas,
        epilog=_QUOTAS_EPILOG,
    )
    add_client_options(quotas)
    account = quotas.add_argument("nickname", metavar="ACCOUNT", nargs="?", default="", help="Without it, your own.")
    complete_ids(account, TEAM_NAMES)
    for name, (text, is_size) in QUOTAS_BY_NAME.items():
        flag = f"--{name.replace('_', '-')}"
        metavar = "SIZE" if is_size else "N"
        quotas.add_argument(flag, type=_size_bound if is_size else _bound, metavar=metavar, help=text)
    add_list_options(quotas, QUOTAS)


def _list(args: argparse.Namespace) -> None:
    run_list(args, lambda client: _rows(client, everything=args.all), lambda rows: write_items(args, TEAMS, rows))


def _rows(client: SyncServerlessClient, *, everything: bool) -> Sequence[Row]:
    # The account that calls act for comes first.
    return [Row(account, place == 0) for place, account in enumerate(client.accounts.list(everything=everything))]


def _create(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        made = client.accounts.create(args.nickname, kind="user" if args.user else "team", full_name=args.name)
    if args.output != "pretty":
        document = {"nickname": made.account.nickname, "key_id": made.key_id, "key_secret": made.key_secret}
        write_document(args.output, document)
        return
    print_note(
        f"Created the {made.account.kind.value} {made.account.nickname}, and a key that may do everything in it. Its "
        "secret is shown only now: keep it safe."
    )
    sys.stdout.write(f"FAL_KEY='{made.key_id}:{made.key_secret}'\n")


def _members(args: argparse.Namespace) -> None:
    run_list(
        args,
        lambda client: client.accounts.members(args.nickname),
        lambda members: write_items(args, MEMBERS, members),
    )


def _add(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        added = client.accounts.add_member(args.nickname, args.user, role=args.role)
    print_note(f"{added.user} is {added.role.value} of {args.nickname}.")


def _remove(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        confirm(args, lambda: _removal(client, args))
        client.accounts.remove_member(args.nickname, args.user)
    print_note(f"{args.user} is not a member of {args.nickname} any more.")


def _removal(client: SyncServerlessClient, args: argparse.Namespace) -> str:
    """Return the question. Nobody is asked about a user who is not a member."""
    if args.user not in {member.user for member in client.accounts.members(args.nickname)}:
        shows = f"`fal teams members {args.nickname}` shows who is"
        raise CommandError(f"'{args.user}' is not a member of {args.nickname}: {shows}")
    return f"Remove {args.user} from {args.nickname}?"


def _delete(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        confirm(args, lambda: _deletion(client, args.nickname))
        removed = client.accounts.delete(args.nickname)
    rest = "" if removed else " Its data is still being removed: the controller continues by itself."
    print_note(f"Deleted {args.nickname}; none of its keys works any more.{rest}")


def _deletion(client: SyncServerlessClient, nickname: str) -> str:
    """Return the question, which says what the account has."""
    used = client.accounts.quotas(nickname).used
    counts = [_counted(used.get(name, 0), what) for name, what in _COUNTED.items()]
    size = shown_bytes(used.get("data_bytes", 0))
    return (
        f"Delete {nickname} with its apps, keys and secrets, {', '.join(counts)} and {size} in /data? "
        "This cannot be undone."
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _quotas(args: argparse.Namespace) -> None:
    wanted = {name: getattr(args, name) for name in QUOTAS_BY_NAME if getattr(args, name) is not None}
    if wanted:
        if not args.nickname:
            raise CommandError("name the account whose quotas to set: `fal teams quotas ACCOUNT ...`", ExitCode.USAGE)
        with open_client(args) as client:
            client.accounts.set_quotas(args.nickname, **wanted)
    run_list(args, lambda client: _quotas_of(client, args.nickname), lambda rows: write_items(args, QUOTAS, rows))


def _quotas_of(client: SyncServerlessClient, nickname: str) -> Sequence[Quota]:
    found = client.accounts.quotas(nickname)
    return [Quota(name, bound, found.used.get(name)) for name, bound in found.bounds.items()]


def _bound(text: str) -> int:
    if text == "none":
        return 0
    if not (text.isascii() and text.isdigit() and int(text[:_MOST_DIGITS]) > 0 and len(text) <= _MOST_DIGITS):
        raise argparse.ArgumentTypeError(f"'{text[:40]}' is not a number above 0, or `none`")
    return int(text)


def _size_bound(text: str) -> int:
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in _UNITS else (text, "")
    try:
        return _bound(number) * _UNITS.get(unit, 1)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"'{text[:40]}' is not a size such as 500M or 20G, or `none`") from None


def _rename(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        confirm(
            args, lambda: f"Rename {args.nickname} to {args.new_nickname}? Its apps move to /{args.new_nickname}/..."
        )
        renamed = client.accounts.rename(args.nickname, args.new_nickname, full_name=args.name)
    print_note(f"{args.nickname} is {renamed.nickname} now; its keys and members stay.")
