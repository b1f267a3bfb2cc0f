"""`fal runners`: lists, shows, stops and kills runners."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from fal_cli.commands.runners import copying, logs, port_forward, profiling, sessions
from fal_cli.commands.runners.filters import add_runner_filters, failing_apps, of_states, since_for
from fal_cli.completion import complete_ids
from fal_cli.ids import RUNNERS as RUNNER_IDS
from fal_cli.ids import resolve
from fal_cli.options import add_client_options, add_output_options, int_type, open_client
from fal_cli.parser import Commands, FalParser, add_command, add_commands
from fal_cli.presentation.apps import write_failures
from fal_cli.presentation.counting import counted
from fal_cli.presentation.listing import add_list_options, run_list, write_items
from fal_cli.presentation.nodes import MACHINE_TYPES, write_nodes
from fal_cli.presentation.output import print_note
from fal_cli.presentation.runners import ENDED_STATES, RUNNERS, describe_end, write_gpus, write_runner, write_runners

if TYPE_CHECKING:
    from fal.api import AliasInfo, RunnerInfo, SyncServerlessClient

_POLL_SECONDS = 0.5


def add_arguments(parser: FalParser) -> None:
    """Declare `fal runners` and its sub-commands."""
    commands = add_commands(parser)
    stop = _add_ending(commands, "stop", "Stop a runner gracefully.")
    stop.beyond(stop.add_argument("--wait", action="store_true", help="Return when the runner has ended."))
    stop.beyond(
        stop.add_argument(
            "-r", "--replace", action="store_true", help="Wait for another runner to take its place first."
        )
    )
    stop.beyond(
        stop.add_argument(
            "--grace", type=int_type, metavar="SECONDS", help="Time for its process to end by itself, 0 to 30."
        )
    )
    _add_ending(commands, "kill", "Kill a runner.")
    list_parser = add_command(commands, "list", "List runners.", _list)
    add_client_options(list_parser)
    add_runner_filters(list_parser)
    add_list_options(list_parser, RUNNERS)
    logs.add_command_to(commands)
    sessions.add_commands_to(commands)
    copying.add_command_to(commands)
    port_forward.add_command_to(commands)
    profiling.add_command_to(commands)
    get = add_command(commands, "get", "Show a runner: its state, why, and how its start went.", _get, published=False)
    add_client_options(get)
    complete_ids(get.add_argument("id", help="Runner ID."), RUNNER_IDS)
    add_output_options(get)
    gpus = add_command(commands, "gpus", "Show how many GPUs are in use, by model.", _gpus, published=False)
    add_client_options(gpus)
    add_output_options(gpus)
    nodes = add_command(
        commands, "nodes", "Show the machines that runners run on, and who has which GPU.", _nodes, published=False
    )
    add_client_options(nodes)
    add_output_options(nodes)
    types = add_command(commands, "types", "List the machine types of runners.", _types, published=False)
    add_client_options(types)
    add_list_options(types, MACHINE_TYPES)


def _add_ending(commands: Commands, name: str, help: str) -> FalParser:  # noqa: A002 - argparse's word
    parser = add_command(commands, name, help, _stop if name == "stop" else _kill)
    add_client_options(parser)
    complete_ids(parser.add_argument("id", help="Runner ID."), RUNNER_IDS)
    return parser


def _list(args: argparse.Namespace) -> None:
    since = since_for(args)
    failing: list[AliasInfo] = []

    def fetch(client: SyncServerlessClient) -> list[RunnerInfo]:
        failing[:] = failing_apps(client, args)
        return of_states(client.runners.list(since=since), args.state)

    def write(runners: list[RunnerInfo]) -> None:
        write_runners(args, runners)
        write_failures(failing)

    run_list(
        args,
        fetch,
        write,
        lambda client: (of_states(runners, args.state) for runners in client.runners.watch(since=since)),
    )


def _get(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        runner = client.runners.get(resolve(client, RUNNER_IDS, args.id, args))
    write_runner(args.output, runner)


def _stop(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        runner_id = resolve(client, RUNNER_IDS, args.id, args)
        client.runners.stop(runner_id, replace_first=args.replace, grace=args.grace)
        # A script gets the plain sentence, and the controller no request that the published client would not send.
        print_note(_progress(client, runner_id) if sys.stderr.isatty() else f"Runner {runner_id} is stopping.")
        if args.wait:
            print_note(describe_end(_wait_for_end(client, runner_id)))


def _progress(client: SyncServerlessClient, runner_id: str) -> str:
    """Return a stop's progress, as far as the controller reports it."""
    from fal.api import FalError

    try:
        runner = client.runners.get(runner_id)
    except FalError:
        return f"Runner {runner_id} is stopping."
    count = runner.in_flight_requests
    requests = f"; it finishes {counted(count, 'request')} first" if count else ""
    return f"Runner {runner_id} is stopping{requests}."


def _wait_for_end(client: SyncServerlessClient, runner_id: str) -> RunnerInfo:
    import time

    while (runner := client.runners.get(runner_id)).state.value not in ENDED_STATES:
        time.sleep(_POLL_SECONDS)  # WatchRunners would send every runner of an app
    return runner


def _kill(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        runner_id = resolve(client, RUNNER_IDS, args.id, args)
        client.runners.kill(runner_id)
    print_note(f"Runner {runner_id} is killed.")


def _nodes(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        found = client.runners.nodes()
    write_nodes(args.output, found.nodes)


def _types(args: argparse.Namespace) -> None:
    run_list(
        args,
        lambda client: client.runners.nodes().machine_types,
        lambda found: write_items(args, MACHINE_TYPES, found),
    )


def _gpus(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        used = client.runners.gpus()
    write_gpus(args.output, used)
