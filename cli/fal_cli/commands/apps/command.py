"""`fal apps`: lists, scales, rolls out and deletes apps. It also moves them between revisions."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fal_cli.commands.apps import details, logs, scaling, stats
from fal_cli.commands.runners.filters import add_runner_filters, failing_apps, of_states, since_for
from fal_cli.completion import complete_ids
from fal_cli.exit_codes import CommandError
from fal_cli.ids import APPS as APP_NAMES
from fal_cli.ids import REVISIONS as REVISION_IDS
from fal_cli.ids import require, resolve
from fal_cli.options import add_client_options, add_env_option, add_output_options, int_type, open_client
from fal_cli.parser import Commands, FalParser, Handler, add_command, add_commands
from fal_cli.presentation.apps import APPS, REVISIONS, write_apps, write_failures
from fal_cli.presentation.listing import add_list_options, run_list, write_items
from fal_cli.presentation.output import print_line, print_note
from fal_cli.presentation.runners import RUNNERS, write_gpus, write_runners
from fal_cli.prompts import add_yes_option, confirm

if TYPE_CHECKING:
    from fal.api import AliasInfo, RunnerInfo, SyncServerlessClient

_SCALE_NUMBERS = {
    "keep_alive": "Seconds that a runner without requests is kept.",
    "max_multiplexing": "Requests that a runner serves at once, at most.",
    "max_concurrency": "Runners, at most.",
    "min_concurrency": "Runners, at least.",
    "concurrency_buffer": "Spare runners, at least.",
    "concurrency_buffer_perc": "Spare runners, in percent of those in use.",
    "scaling_delay": "Seconds that a request may wait before another runner is started for it.",
    "request_timeout": "Seconds that a request may take; one that takes longer is aborted.",
    "request_start_timeout": "Seconds that a request may wait to be served; 0 removes the limit.",
    "startup_timeout": "Seconds that a runner may take to become ready.",
}
# After a change of these, there may be no machine that can run the app.
_PLACES = frozenset({"machine_types", "regions"})
# Each deploy sets these from the app's code, so a change lasts until the next deploy.
_UNTIL_DEPLOY = ("max_multiplexing", "startup_timeout", "machine_types")


def add_arguments(parser: FalParser) -> None:
    """Declare `fal apps` and its sub-commands."""
    commands = add_commands(parser)
    _add_list(commands)
    details.add_command_to(commands)
    list_rev = _add(commands, "list-rev", "List application revisions.", _list_rev)
    complete_ids(list_rev.add_argument("app_name", nargs="?", help="Application name."), APP_NAMES)
    add_list_options(list_rev, REVISIONS)
    set_rev = _add(commands, "set-rev", "Set application to a particular revision.", _set_rev)
    complete_ids(set_rev.add_argument("app_name", help="Application name."), APP_NAMES)
    complete_ids(set_rev.add_argument("app_rev", help="Application revision."), REVISION_IDS)
    set_rev.add_argument("--auth", choices=("public", "private", "shared"), help="Who may call the application.")
    set_rev.add_argument(
        "--strategy",
        choices=("recreate", "rolling"),
        help="Move at once, or when a runner of the revision is ready.",
    )
    logs.add_command_to(commands)
    scaling.add_commands_to(commands)
    stats.add_command_to(commands)
    _add_scale(commands)
    gpus = add_command(commands, "gpus", "Show how many GPUs an application uses, by model.", _gpus)
    add_client_options(gpus)
    complete_ids(gpus.add_argument("app_name", help="Application name."), APP_NAMES)
    add_output_options(gpus)
    rollout = _add(commands, "rollout", "Replace the runners of an application.", _rollout)
    complete_ids(rollout.add_argument("app_name", help="Application name."), APP_NAMES)
    rollout.add_argument("--force", action="store_true", help="End the old runners at once.")
    runners = _add(commands, "runners", "List application runners.", _runners)
    complete_ids(runners.add_argument("app_name", help="Application name."), APP_NAMES)
    add_runner_filters(runners)
    add_list_options(runners, RUNNERS)
    delete = _add(commands, "delete", "Delete application.", _delete)
    add_yes_option(delete)
    complete_ids(delete.add_argument("app_name", help="Application name."), APP_NAMES)
    delete_rev = add_command(commands, "delete-rev", "Delete application revision.", _delete_rev)
    add_client_options(delete_rev)
    add_yes_option(delete_rev)
    complete_ids(delete_rev.add_argument("app_rev", help="Application revision."), REVISION_IDS)


def _add(commands: Commands, name: str, help: str, handler: Handler) -> FalParser:  # noqa: A002
    parser = add_command(commands, name, help, handler)
    add_client_options(parser)
    add_env_option(parser)
    return parser


def _add_list(commands: Commands) -> None:
    parser = _add(commands, "list", "List applications.", _list)
    parser.add_argument("--sort-by-runners", action="store_true", help="Sort by number of runners, fewest first.")
    parser.add_argument("--filter", help="Only applications whose name contains this.")
    parser.add_argument(
        "--regions", nargs="+", metavar="REGION", help="Only applications that may run in one of these regions."
    )
    add_list_options(parser, APPS)


def _add_scale(commands: Commands) -> None:
    parser = _add(commands, "scale", "Scale application. What is not given stays as it is.", _scale)
    complete_ids(parser.add_argument("app_name", help="Application name."), APP_NAMES)
    for name, text in _SCALE_NUMBERS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int_type, metavar="N", help=text)
    parser.add_argument("--machine-types", nargs="+", metavar="TYPE", help="Machine types it may run on.")
    parser.add_argument("--regions", nargs="+", metavar="REGION", help="Regions it may run in; '' means any.")


def _list(args: argparse.Namespace) -> None:
    def watch(client: SyncServerlessClient) -> Iterator[list[AliasInfo]]:
        for apps in client.apps.watch(filter=args.filter, environment_name=args.env):
            yield _chosen(args, apps)

    run_list(
        args,
        lambda client: _chosen(args, client.apps.list(filter=args.filter, environment_name=args.env)),
        lambda apps: write_apps(args, apps),
        watch,
    )


def _chosen(args: argparse.Namespace, apps: Sequence[AliasInfo]) -> list[AliasInfo]:
    if args.regions:
        apps = [app for app in apps if not set(args.regions).isdisjoint(app.valid_regions)]
    if args.sort_by_runners:
        return sorted(apps, key=lambda app: app.active_runners)
    return sorted(apps, key=lambda app: app.alias)


def _list_rev(args: argparse.Namespace) -> None:
    run_list(
        args,
        lambda client: client.apps.list_rev(args.app_name, environment_name=args.env),
        lambda revisions: write_items(args, REVISIONS, revisions),
    )


def _set_rev(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        revision = resolve(client, REVISION_IDS, args.app_rev, args)
        app = client.apps.set_rev(
            args.app_name, revision, auth=args.auth, strategy=args.strategy, environment_name=args.env
        )
    _write_changed(app)
    print_note(_describe_move(args.app_name, app, revision))


def _describe_move(name: str, app: AliasInfo, revision: str) -> str:
    if app.revision != revision:
        return f"Application {name} moves to revision {revision} when a runner of it is ready."
    return (
        f"Application {name} is on revision {revision}; runners of others end when they have finished their requests."
    )


def _scale(args: argparse.Namespace) -> None:
    names = (*_SCALE_NUMBERS, "machine_types", "regions")
    changes = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if not changes:
        print_note("No parameters for update were provided, ignoring.")
        return
    with open_client(args) as client:
        app = client.apps.scale(args.app_name, environment_name=args.env, **changes)
        explained = None
        if not _PLACES.isdisjoint(changes):
            explained = details.if_possible(lambda: client.apps.explain(args.app_name, environment_name=args.env))
    _write_changed(app)
    print_note(f"Scaled application {args.app_name}; its runners follow.")
    lost = [name for name in _UNTIL_DEPLOY if name in changes]
    if lost:
        print_note(f"Note: the next deploy sets {', '.join(lost)} to what the application's code says.")
    if explained is not None and explained.lack:
        print_note(f"Warning: no machine can run it: {explained.lack}")


def _rollout(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        client.apps.rollout(args.app_name, force=args.force, environment_name=args.env)
    print_line(f"Rolled out application {args.app_name}")
    going_on = "The old ones end at once" if args.force else "The old ones end when they have finished their requests"
    print_note(f"New runners start when requests need them. {going_on}.")


def _runners(args: argparse.Namespace) -> None:
    since = since_for(args)
    failing: list[AliasInfo] = []

    def fetch(client: SyncServerlessClient) -> list[RunnerInfo]:
        failing[:] = failing_apps(client, args, app=args.app_name, environment_name=args.env)
        return of_states(client.apps.runners(args.app_name, since=since, environment_name=args.env), args.state)

    def write(runners: list[RunnerInfo]) -> None:
        write_runners(args, runners, alias=False)
        write_failures(failing)

    run_list(
        args,
        fetch,
        write,
        lambda client: (
            of_states(runners, args.state)
            for runners in client.runners.watch(app=args.app_name, since=since, environment_name=args.env)
        ),
    )


def _delete(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        confirm(args, lambda: f"Delete application '{_require_app(client, args)}'? Its runners end.")
        revision = client.apps.delete(args.app_name, environment_name=args.env)
    if revision is None:
        raise CommandError(f"Application '{args.app_name}' not found: `fal apps list` shows which exist")
    print_line(f"Application '{args.app_name}' deleted ({revision})")
    print_note("Its runners end when they have finished their requests.")


def _require_app(client: SyncServerlessClient, args: argparse.Namespace) -> str:
    """Return the app's name, which may end in its environment. Raise an error if the app does not exist."""
    name, _, environment = args.app_name.partition("--")
    require(client, APP_NAMES, name, argparse.Namespace(env=environment or args.env))
    return str(args.app_name)


def _delete_rev(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        revision = resolve(client, REVISION_IDS, args.app_rev, args)
        confirm(args, lambda: f"Delete revision {require(client, REVISION_IDS, revision, args)}?")
        client.apps.delete_rev(revision)
    print_note(f"Deleted revision {revision}.")


def _gpus(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        used = client.apps.gpus(args.app_name)
    write_gpus(args.output, used)


def _write_changed(app: AliasInfo) -> None:
    """Show an app after a change of its settings. It shows all of them."""
    write_apps(argparse.Namespace(output="wide", columns=None, sort=None), [app])
