"""`fal notices`: creates, lists, tests and deletes who is told of problems."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fal_cli.completion import complete_ids
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.ids import APPS, require
from fal_cli.ids import NOTICES as NOTICE_NAMES
from fal_cli.options import add_client_options, add_output_options, open_client
from fal_cli.parser import FalParser, add_command, add_commands
from fal_cli.presentation.listing import Field, Listing, add_list_options, run_list, time_field, write_items
from fal_cli.presentation.output import print_facts, print_line, print_note, shown_time, write_document
from fal_cli.prompts import add_yes_option, confirm, require_secret

if TYPE_CHECKING:
    from datetime import datetime

    from fal.api import Notice, NoticeProblem

_FORMS = ("webhook", "slack", "email")
_CREATE_EPILOG = """\
Examples:
  fal notices create ops https://ops.example/in --signing-key < key.txt
  fal notices create team - --format slack < url.txt
  fal notices create mail smtp://fal@mail.example:587 --format email \\
    --to ops@example.com --password < password.txt
  fal notices create queue https://ops.example/in --on queue-size=50 \\
    --on error-share=10 --app hello

Without --on it tells of all conditions:
  startup-failure=1  failed starts of an app in a row
  startup-timeout=1  the same, if the last one exceeded its startup_timeout
  out-of-memory=1    runners that ran out of memory in 10 minutes
  queue-size=100     requests of an app that wait for a runner
  error-share=5      percent of an app's requests of a minute with a status of
                     500 or above, if there are 20 and more
Of the controller, for keys of its first account:
  node-lost=1        a further machine that does not answer
  disk-full=90       percent of the state directory's disk that is used
  certificate=14     days until the certificate ends"""


def document(notice: Notice) -> dict[str, object]:
    """Return a notice for JSON and YAML."""
    return {
        "name": notice.name,
        "form": notice.form,
        "receiver": notice.receiver,
        "thresholds": dict(notice.thresholds),
        "apps": list(notice.apps),
        "signed": notice.signed,
        "created_at": notice.created_at.isoformat(),
        "last_sent_at": _iso(notice.last_sent_at),
        "last_error": notice.last_error,
        "last_error_at": _iso(notice.last_error_at),
        "problems": [
            {
                "condition": problem.condition,
                "subject": problem.subject,
                "value": problem.value,
                "detail": problem.detail,
                "began_at": problem.began_at.isoformat(),
                "told_at": _iso(problem.told_at),
                "ended_at": _iso(problem.ended_at),
            }
            for problem in notice.problems
        ],
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _conditions(notice: Notice) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in sorted(notice.thresholds.items()))


NOTICES: Listing[Notice] = Listing(
    noun="notices",
    fields=(
        Field(title="Name", text=lambda notice: notice.name),
        Field(title="Format", text=lambda notice: notice.form),
        Field(title="Receiver", text=lambda notice: notice.receiver, folds=True),
        Field(
            title="Problems",
            text=lambda notice: str(len(notice.problems)),
            sort_key=lambda notice: len(notice.problems),
        ),
        Field(title="Last Error", text=lambda notice: notice.last_error or "-", folds=True),
        Field(title="Conditions", text=_conditions, folds=True, wide=True),
        Field(title="Apps", text=lambda notice: ", ".join(notice.apps) or "all", folds=True, wide=True),
        time_field("Created At", lambda notice: notice.created_at, wide=True),
    ),
    document=document,
    item_name=lambda notice: notice.name,
)


def add_arguments(parser: FalParser) -> None:
    """Declare `fal notices` and its sub-commands."""
    commands = add_commands(parser)
    create = add_command(commands, "create", "Tell a receiver when something is wrong.", _create, epilog=_CREATE_EPILOG)
    add_client_options(create)
    create.add_argument("name", metavar="NAME", help="A name for the notice: a-z, 0-9 and hyphens.")
    create.add_argument(
        "url",
        metavar="URL",
        help="The receiver: an http or https URL; for e-mail the server, as smtp://user@host:587 or smtps://user@host. "
        "- reads it from standard input.",
    )
    create.add_argument("--format", choices=_FORMS, default="webhook", help="How to tell (defaults to %(default)s).")
    create.add_argument(
        "--on",
        action="append",
        default=[],
        metavar="CONDITION[=VALUE]",
        help="Tell of this condition only, from this value on, or from the usual one (see below). May be repeated.",
    )
    complete_ids(
        create.add_argument(
            "--app", action="append", default=[], metavar="APP", help="Only problems of this app. May be repeated."
        ),
        APPS,
    )
    create.add_argument(
        "--signing-key",
        action="store_true",
        help="Sign webhooks with HMAC-SHA256, with a key from standard input; at a terminal it is asked for.",
    )
    create.add_argument(
        "--to", action="append", default=[], metavar="ADDRESS", help="Who gets the e-mail. May be repeated."
    )
    create.add_argument("--from", dest="sender", metavar="ADDRESS", help="Where e-mail comes from (defaults to --to).")
    create.add_argument(
        "--password",
        action="store_true",
        help="Log in to the e-mail server with a password from standard input; at a terminal it is asked for.",
    )
    add_output_options(create)
    list_parser = add_command(commands, "list", "List notices.", _list)
    add_client_options(list_parser)
    add_list_options(list_parser, NOTICES)
    get = add_command(commands, "get", "Show a notice, and the problems that exist.", _get)
    add_client_options(get)
    add_output_options(get)
    test = add_command(commands, "test", "Send a test to the receiver now.", _test)
    add_client_options(test)
    delete = add_command(commands, "delete", "Delete a notice.", _delete)
    add_client_options(delete)
    add_yes_option(delete)
    for command in (get, test, delete):
        complete_ids(command.add_argument("name", metavar="NAME", help="Notice's name."), NOTICE_NAMES)


def _create(args: argparse.Namespace) -> None:
    if (args.url == "-") + args.signing_key + args.password > 1:
        raise CommandError(
            "only one value can be read from standard input: the URL, the key or the password", ExitCode.USAGE
        )
    thresholds = dict(_threshold(text) for text in args.on)
    url = require_secret("URL") if args.url == "-" else args.url
    signing_key = require_secret("signing key") if args.signing_key else None
    password = require_secret("password") if args.password else None
    with open_client(args) as client:
        notice = client.notices.create(
            args.name,
            url,
            form=args.format,
            thresholds=thresholds,
            apps=args.app,
            signing_key=signing_key,
            to=args.to,
            sender=args.sender,
            password=password,
        )
    print_note(f"Created notice {notice.name}. `fal notices test {notice.name}` sends a test to its receiver.")
    if args.output != "pretty":
        write_document(args.output, document(notice))


def _threshold(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    if not equals:
        return name, 0.0  # the usual one
    try:
        return name, float(value)
    except ValueError:
        raise CommandError(f"--on {text}: {value!r} is not a number", ExitCode.USAGE) from None


def _list(args: argparse.Namespace) -> None:
    run_list(args, lambda client: client.notices.list(), lambda notices: write_items(args, NOTICES, notices))


def _get(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        notice = client.notices.get(args.name)
    if args.output != "pretty":
        write_document(args.output, document(notice))
        return
    rows = {
        "Name": notice.name,
        "Format": notice.form,
        "Receiver": notice.receiver,
        "Conditions": _conditions(notice),
        "Apps": ", ".join(notice.apps) or "all",
        "Signed": "yes" if notice.signed else "no",
        "Created at": shown_time(notice.created_at),
        "Last sent": shown_time(notice.last_sent_at) if notice.last_sent_at else "never",
        "Last error": f"{notice.last_error} ({shown_time(notice.last_error_at)})" if notice.last_error else "-",
        "Problems": str(len(notice.problems)),
    }
    print_facts(rows.items(), 13)
    for problem in notice.problems:
        print_line(f"  {_shown(problem)}")


def _shown(problem: NoticeProblem) -> str:
    told = f"told {shown_time(problem.told_at)}" if problem.told_at else "not told yet"
    ended = f", ended {shown_time(problem.ended_at)}" if problem.ended_at else ""
    return (
        f"{problem.condition} of {problem.subject}: {problem.detail} "
        f"(began {shown_time(problem.began_at)}{ended}; {told})"
    )


def _test(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        client.notices.test(args.name)
    print_note(f"The receiver of notice {args.name} took the test.")


def _delete(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        confirm(args, lambda: f"Delete notice '{require(client, NOTICE_NAMES, args.name, args)}'?")
        client.notices.delete(args.name)
    print_note(f"Deleted notice {args.name}.")
