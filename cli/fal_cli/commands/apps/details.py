"""`fal apps get`: shows all details of one app."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from fal_cli.completion import complete_ids
from fal_cli.exit_codes import CommandError
from fal_cli.ids import APPS as APP_NAMES
from fal_cli.options import add_client_options, add_env_option, add_output_options, open_client
from fal_cli.parser import Commands, add_command
from fal_cli.presentation.apps import APPS, REVISIONS, app_name
from fal_cli.presentation.output import print_facts, print_line, write_document, write_table
from fal_cli.presentation.runners import RUNNERS

if TYPE_CHECKING:
    from fal.api import AliasInfo, AppExplanation, ApplicationInfo, RunnerInfo, SyncServerlessClient

Found = TypeVar("Found")
_SHOWN_REVISIONS = 5
_REVISION_COLUMNS = ("revision", "current", "created", "message", "annotations")
_RUNNER_COLUMNS = ("runner-id", "state", "in-flight-requests", "uptime", "revision")
_SETTINGS = tuple(
    field for field in APPS.fields if field.title not in {"Name", "Env", "Revision", "Auth", "Machine Type", "Runners"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Details:
    app: AliasInfo
    revisions: list[ApplicationInfo]
    runners: list[RunnerInfo]
    explanation: AppExplanation | None
    addresses: Mapping[str, str]


def add_command_to(commands: Commands) -> None:
    """Declare `get`."""
    parser = add_command(
        commands,
        "get",
        "Show an application: addresses, revisions, runners, the last failure.",
        _get,
        published=False,
    )
    complete_ids(parser.add_argument("app_name", help="Application name."), APP_NAMES)
    add_client_options(parser)
    add_env_option(parser)
    add_output_options(parser)


def _get(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        details = _fetch(args, client)
    if args.output == "pretty":
        _write(details)
    else:
        write_document(args.output, _document(details))


def _fetch(args: argparse.Namespace, client: SyncServerlessClient) -> _Details:
    apps = client.apps.list(environment_name=args.env)
    app = next((app for app in apps if args.app_name in {app.alias, app_name(app)}), None)
    if app is None:
        raise CommandError(f"Application '{args.app_name}' not found: `fal apps list` shows which exist")
    return _Details(
        app=app,
        revisions=client.apps.list_rev(args.app_name, environment_name=args.env),
        runners=client.apps.runners(args.app_name, environment_name=args.env),
        explanation=if_possible(lambda: client.apps.explain(args.app_name, environment_name=args.env)),
        addresses=_addresses(client, app.alias),
    )


def if_possible(ask: Callable[[], Found]) -> Found | None:
    """Return a controller's response. None if it lacks the call, or the key lacks the permission."""
    from fal.api import NotFoundError, PermissionDeniedError, UnimplementedError

    try:
        return ask()
    except (NotFoundError, PermissionDeniedError, UnimplementedError):
        return None


def _addresses(client: SyncServerlessClient, alias: str) -> dict[str, str]:
    """Return the app's addresses; none if the controller names no owner."""
    from fal.api import FalError
    from fal.hosts import find_hosts

    try:
        user = client.rest().ask("GET", "/users/current")
    except FalError:
        return {}
    owner = user.get("nickname") if isinstance(user, dict) else None
    if not isinstance(owner, str):
        return {}
    hosts = find_hosts(client.settings)
    bases = {"run": hosts.run, "queue": hosts.queue, "realtime": hosts.realtime}
    return {kind: f"{base}/{owner}/{alias}" for kind, base in bases.items()}


def _write(details: _Details) -> None:
    app, explanation = details.app, details.explanation
    states = Counter(runner.state.value for runner in details.runners)
    facts = [
        ("Application", app_name(app)),
        ("Environment", app.environment_name or "main"),
        ("Auth", app.auth_mode),
        ("Revision", app.revision),
        ("Machine type", " ".join(app.machine_types)),
        ("Runners", ", ".join(f"{count} {state}" for state, count in states.items()) or "none"),
    ]
    if explanation is not None:
        load = explanation.load
        facts.append(("Requests", f"{load.in_flight} in flight, {load.queued} waiting"))
        if explanation.next_revision:
            facts.append(("Rolling out", f"moves to {explanation.next_revision} when a runner of it is ready"))
        if explanation.failed_starts:
            reason = explanation.last_failure or "no reason is known"
            facts.append(("Failed starts", f"{explanation.failed_starts} in a row; the last one: {reason}"))
        if explanation.lack:
            facts.append(("No machine", f"can run it: {explanation.lack}"))
    elif app.is_rolling:
        facts.append(("Rolling out", "new runners take over from the old ones"))
    facts += [(f"Address ({kind})", address) for kind, address in details.addresses.items()]
    print_facts(facts, 20)
    print_line("Settings: " + ", ".join(f"{field.title.lower()} {field.text(app) or 'any'}" for field in _SETTINGS))
    print_line(f"\nThe newest revisions ({len(details.revisions)} in all):")
    revisions = [REVISIONS.field(name) for name in _REVISION_COLUMNS]
    write_table(revisions, ([f.text(found) for f in revisions] for found in details.revisions[:_SHOWN_REVISIONS]))
    if details.runners:
        print_line("\nRunners:")
        runners = [RUNNERS.field(name) for name in _RUNNER_COLUMNS]
        write_table(runners, ([field.text(found) for field in runners] for found in details.runners))


def _document(details: _Details) -> dict[str, object]:
    explanation = details.explanation
    return {
        **APPS.document(details.app),
        "is_rolling": details.app.is_rolling,
        "next_revision": explanation.next_revision if explanation else None,
        "in_flight": explanation.load.in_flight if explanation else None,
        "queued": explanation.load.queued if explanation else None,
        "failed_starts": explanation.failed_starts if explanation else None,
        "last_failure": explanation.last_failure if explanation else None,
        "lack": explanation.lack if explanation else None,
        "addresses": dict(details.addresses),
        "revisions": [dict(REVISIONS.document(revision)) for revision in details.revisions],
        "runners": [dict(RUNNERS.document(runner)) for runner in details.runners],
    }
