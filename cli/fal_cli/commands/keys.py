"""`fal keys`: creates, lists, rotates and revokes keys."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from typing import TYPE_CHECKING

from fal_cli.completion import complete_ids
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.ids import ENVIRONMENTS, require, resolve
from fal_cli.ids import KEYS as KEY_IDS
from fal_cli.options import add_client_options, add_output_options, duration_type, name_type, open_client
from fal_cli.parser import FalParser, add_command, add_commands
from fal_cli.presentation.listing import Field, Listing, add_list_options, run_list, time_field, write_items
from fal_cli.presentation.output import print_note, write_document
from fal_cli.prompts import add_yes_option, confirm
from fal_cli.times import describe_duration, parse_expiry

if TYPE_CHECKING:
    from fal.api import UserKeyInfo

_PRESETS = {
    "FULL": "everything",
    "API": "call apps and upload files",
    "DEPLOY": "deploy apps and upload files",
    "READONLY": "read apps and logs",
    "BILLING": "read usage",
    "COMPUTE": "manage runners",
    "SERVERLESS": "build, deploy and call apps",
    "AGENT": "run agents",
}


KEYS: Listing[UserKeyInfo] = Listing(
    noun="keys",
    fields=(
        Field(title="Key ID", shortens=True, text=lambda key: key.key_id),
        time_field("Created At", lambda key: key.created_at),
        Field(title="Scope", text=lambda key: key.scope.value if key.scope else "-"),
        Field(title="Description", text=lambda key: key.alias, folds=True),
        time_field("Expires At", lambda key: key.expires_at, wide=True),
        time_field("Last Used At", lambda key: key.last_used_at, wide=True),
        Field(title="Permissions", text=lambda key: ", ".join(key.permissions), folds=True, wide=True),
    ),
    document=lambda key: {
        "key_id": key.key_id,
        "created_at": str(key.created_at),
        "scope": key.scope.value if key.scope else None,
        "description": key.alias,
        "expires_at": None if key.expires_at is None else key.expires_at.isoformat(),
        "last_used_at": None if key.last_used_at is None else key.last_used_at.isoformat(),
        "permissions": list(key.permissions),
    },
    item_name=lambda key: key.key_id,
)


def add_arguments(parser: FalParser) -> None:
    """Declare `fal keys` and its sub-commands."""
    commands = add_commands(parser)
    create = add_command(commands, "create", "Create a key.", _create)
    add_client_options(create)
    grant = create.add_mutually_exclusive_group()
    grant.add_argument("--preset", choices=tuple(_PRESETS), help="What the key may do, by the name of a preset.")
    grant.add_argument(
        "--permission",
        action="append",
        metavar="PERMISSION",
        help="A permission of the key. May be repeated, and takes a comma separated list.",
    )
    grant.add_argument(
        "--scope", choices=("ADMIN", "API"), type=str.upper, help="ADMIN may manage, API may call apps only."
    )
    create.add_argument("--desc", "--alias", metavar="DESC", help="A description of the key.")
    create.beyond(
        create.add_argument(
            "--expires",
            type=_expiry,
            metavar="WHEN",
            help="When the key expires: a time from now, such as 30d, or an ISO timestamp; never, if not given.",
        )
    )
    create.beyond(
        create.add_argument(
            "--for-app",
            type=name_type,
            metavar="APP",
            help="Only for this app: the key gets the permissions that can be limited to one app (with --env).",
        )
    )
    environment = create.add_argument(
        "--env", type=name_type, help="Only for this environment, or for the app of --for-app in it."
    )
    complete_ids(environment, ENVIRONMENTS)
    create.beyond(environment)
    add_output_options(create)
    list_parser = add_command(commands, "list", "List keys.", _list)
    add_client_options(list_parser)
    add_list_options(list_parser, KEYS)
    rotate = add_command(
        commands, "rotate", "Replace a key by one that may do the same; the old one still works for a while.", _rotate
    )
    add_client_options(rotate)
    rotate.add_argument(
        "--overlap",
        type=duration_type,
        default="24h",
        metavar="DURATION",
        help="How long the old key still works, such as 1h; with 0 it ends at once (defaults to %(default)s).",
    )
    add_output_options(rotate)
    complete_ids(rotate.add_argument("key_id", help="Key ID."), KEY_IDS)
    revoke = add_command(commands, "revoke", "Revoke a key.", _revoke)
    add_client_options(revoke)
    add_yes_option(revoke)
    complete_ids(revoke.add_argument("key_id", help="Key ID."), KEY_IDS)


def _create(args: argparse.Namespace) -> None:
    preset, permissions, scope = args.preset, _split(args.permission or ()), args.scope
    if args.permission and not permissions:
        raise CommandError("--permission needs the name of at least one permission", ExitCode.USAGE)
    if not (preset or permissions or scope):
        preset = _ask()
    with open_client(args) as client:
        key_id, key_secret = client.keys.create(
            preset=preset,
            permissions=permissions or None,
            scope=scope,
            description=args.desc,
            expires_at=args.expires,
            for_app=args.for_app,
            environment_name=args.env,
        )
    until = "" if args.expires is None else f", until {args.expires.astimezone():%Y-%m-%d %H:%M:%S}"
    part = f", for the app {args.for_app}" if args.for_app else ""
    part += "" if args.env is None else f", in the environment {args.env or 'main'}"
    note = f"Created a key for {preset or scope or ', '.join(permissions)}{part}{until}."
    _write_new(args, key_id, key_secret, note)


def _rotate(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        old = resolve(client, KEY_IDS, args.key_id, args)
        key_id, key_secret = client.keys.rotate(old, overlap=args.overlap)
    left = args.overlap.total_seconds()
    what = f"works for another {describe_duration(left)}" if left else "is revoked"
    _write_new(args, key_id, key_secret, f"Created a key that may do what {old} may, which {what}.")


def _write_new(args: argparse.Namespace, key_id: str, key_secret: str, note: str) -> None:
    if args.output != "pretty":
        write_document(args.output, {"key_id": key_id, "key_secret": key_secret})
        return
    print_note(f"{note} Its secret is shown only now: keep it safe.")
    sys.stdout.write(f"FAL_KEY='{key_id}:{key_secret}'\n")


def _expiry(text: str) -> datetime:
    try:
        return parse_expiry(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _split(values: list[str] | tuple[str, ...]) -> list[str]:
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def _ask() -> str:
    if not sys.stdin.isatty():
        raise CommandError("say what the key may do: --preset API, or --scope ADMIN to manage", ExitCode.USAGE)
    for name, text in _PRESETS.items():
        print_note(f"  {name:<11} {text}")
    while True:
        sys.stderr.write("Preset [API]: ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            raise CommandError("no preset was chosen")
        answer = line.strip().upper() or "API"
        if answer in _PRESETS:
            return answer
        print_note(f"'{answer}' is not one of {', '.join(_PRESETS)}")


def _list(args: argparse.Namespace) -> None:
    run_list(args, lambda client: client.keys.list(), lambda keys: write_items(args, KEYS, keys))


def _revoke(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        key_id = resolve(client, KEY_IDS, args.key_id, args)
        own = key_id == getattr(client.settings.credentials, "key_id", None)
        used = " It is the key that you use now." if own else ""
        confirm(args, lambda: f"Revoke key {require(client, KEY_IDS, key_id, args)}?{used}")
        client.keys.revoke(key_id)
    print_note(
        f"Revoked key {key_id}."
        + (
            " It was the key in use: `fal profile key` sets another one, `fal up --new-key` makes one on its machine."
            if own
            else ""
        )
    )
