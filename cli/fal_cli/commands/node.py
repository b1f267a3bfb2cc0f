"""`fal node`: runs runners on further machines."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from urllib.parse import quote

from fal.extras import CONTROLLER, missing
from fal_cli.completion import complete_words
from fal_cli.controller_process import (
    ControllerProcess,
    add_state_dir_option,
    default_state_dir,
    find_controller,
    require_controller,
)
from fal_cli.exit_codes import CommandError
from fal_cli.options import add_output_options, name_type, path_type
from fal_cli.parser import FalParser, add_command, add_commands
from fal_cli.presentation.output import print_error, print_line, print_note, write_document, write_table
from fal_cli.presentation.table import Column
from fal_cli.prompts import add_yes_option, ask_secret, confirm

_UP_EPILOG = """\
Examples:
  fal node up --host 10.0.0.5       on the further machine; it prints a token
  fal node join 10.0.0.5:7411       on the controller's; it asks for the token"""
# A machine that does not answer is waited for.
_MOST_SECONDS = 120.0
_COLUMNS = (
    Column(title="Name"),
    Column(title="Address"),
    Column(title="Region"),
    Column(title="Network"),
    Column(title="Runners", right=True),
    Column(title="State", folds=True),
)


def add_arguments(parser: FalParser) -> None:
    """Declare `fal node` and its sub-commands."""
    from fal_server.composition.options import add_node_options

    commands = add_commands(parser)
    up = add_command(commands, "up", "Let a controller elsewhere run runners on this machine.", _up)
    up.epilog = _UP_EPILOG
    up.add_argument(
        "--node-dir",
        type=path_type,
        metavar="DIR",
        default=Path(os.environ.get("FAL_NODE_DIR") or "~/.fal/node").expanduser(),
        help="Where the node keeps its data (defaults to FAL_NODE_DIR, else ~/.fal/node).",
    )
    add_node_options(up)
    join = add_command(commands, "join", "Have a machine on which `fal node up` runs join the controller.", _join)
    add_state_dir_option(join)
    join.add_argument("address", metavar="ADDRESS", help="Host and port, as `fal node up` printed them.")
    listing = add_command(commands, "list", "Show the further machines of the controller.", _list)
    add_state_dir_option(listing)
    add_output_options(listing)
    drain = add_command(commands, "drain", "Start nothing more on a node, and move its runners elsewhere.", _drain)
    add_state_dir_option(drain)
    drain.add_argument("--undo", action="store_true", help="Let runners start on it again.")
    remove = add_command(commands, "remove", "Forget a node.", _remove)
    add_state_dir_option(remove)
    remove.add_argument("--force", action="store_true", help="End the runners that it has.")
    add_yes_option(remove)
    for command in (drain, remove):
        complete_words(command.add_argument("name", type=name_type, metavar="NAME", help="The node."), _names)


def _up(args: argparse.Namespace) -> int:
    if sys.platform != "linux":
        raise CommandError("a node needs Linux")
    if lacking := missing(CONTROLLER):
        raise CommandError(
            f"fal node up needs the controller extra ({lacking[0]} is missing): pip install 'fal-grpc[controller]'"
        )
    from fal_server.composition.node import main
    from fal_server.composition.options import node_arguments

    return main(["--state-dir", str(args.node_dir.absolute()), *node_arguments(args)], fail=print_error)


def _join(args: argparse.Namespace) -> None:
    controller = require_controller(args.state_dir)
    token = ask_secret("Token of the node: ") if sys.stdin.isatty() else sys.stdin.readline()
    answer = controller.ask("POST", "/nodes", {"address": args.address, "token": token.strip()}, seconds=_MOST_SECONDS)
    print_line(f"Node {answer['name']} joined. Runners start on it when they fit.")
    if any(node["name"] == answer["name"] and node["network"] == "trusted" for node in _nodes(controller)):
        print_line("Requests go straight to them, without TLS: --trusted-network names this node's network.")


def _list(args: argparse.Namespace) -> None:
    nodes = _nodes(require_controller(args.state_dir))
    if args.output != "pretty":
        write_document(args.output, {"nodes": nodes})
        return
    if not nodes:
        print_note("No further machine has joined. `fal node up` on one prints a token for `fal node join`.")
        return
    write_table(
        _COLUMNS,
        (
            [
                str(node["name"]),
                f"{node['host']}:{node['port']}",
                str(node["region"]),
                str(node["network"]),
                str(node["runners"]),
                str(node["trouble"] or node["network_trouble"] or "ready"),
            ]
            for node in nodes
        ),
    )


def _drain(args: argparse.Namespace) -> None:
    controller = require_controller(args.state_dir)
    controller.ask("POST", f"/nodes/{quote(args.name)}/drain", {"undo": args.undo})
    if args.undo:
        print_line(f"Runners start on node {args.name} again.")
    else:
        print_line(f"Nothing more starts on node {args.name}; its runners move elsewhere, one by one.")


def _remove(args: argparse.Namespace) -> None:
    controller = require_controller(args.state_dir)

    def removal() -> str:
        found = [node for node in _nodes(controller) if node["name"] == args.name]
        if not found:
            raise CommandError(f"node {args.name!r} not found: `fal node list` shows which joined")
        runners = int(str(found[0]["runners"]))
        ending = (
            f" Its {runners} runner{'s' if runners > 1 else ''} end{'' if runners > 1 else 's'}." if runners else ""
        )
        return f"Remove node {args.name}?{ending}"

    confirm(args, removal)
    controller.ask("POST", f"/nodes/{quote(args.name)}/remove", {"force": args.force}, seconds=_MOST_SECONDS)
    print_line(f"Removed node {args.name}.")


def _nodes(controller: ControllerProcess) -> list[dict[str, object]]:
    found = controller.ask("GET", "/nodes").get("nodes")
    return [node for node in found if isinstance(node, dict)] if isinstance(found, list) else []


def _names() -> list[str]:
    """Return the nodes of the controller on the usual directory. There are none if it does not answer."""
    controller = find_controller(default_state_dir())
    try:
        return [] if controller is None else [str(node["name"]) for node in _nodes(controller)]
    except CommandError:
        return []
