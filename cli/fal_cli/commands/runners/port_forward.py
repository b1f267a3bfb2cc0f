"""The arguments of `fal runners port-forward`."""

from __future__ import annotations

import argparse
from typing import NamedTuple

from fal_cli.completion import complete_ids
from fal_cli.ids import RUNNERS, resolve
from fal_cli.options import add_client_options, open_client
from fal_cli.parser import Commands, add_command

_HELP = "Reach ports of a runner by ports of this machine."
_EPILOG = """\
A port is LOCAL:REMOTE, or REMOTE for the same number on both sides, or :REMOTE for any free port here. REMOTE is the
number that the app uses, or `app` for the app's own port; without a port, `:app` is meant. Only programs on this
machine can connect. Ctrl-C ends it.

Examples:
  fal runners port-forward 83dd5028
  fal runners port-forward 83dd5028 8000:app 5678"""
_MOST_PORT = 65535
APP_PORT = 0
"""Stands for the app's own port, as in `connections`, which is only imported when it runs."""


class Ports(NamedTuple):
    """A local port, or 0 for any free one. It leads to the runner's port."""

    local: int
    remote: int


def add_command_to(commands: Commands) -> None:
    """Declare `port-forward`."""
    parser = add_command(commands, "port-forward", _HELP, _forward, epilog=_EPILOG, published=False)
    add_client_options(parser)
    complete_ids(parser.add_argument("id", help="Runner ID."), RUNNERS)
    parser.add_argument("ports", nargs="*", type=read_ports, metavar="[LOCAL:]REMOTE", help="The ports to join.")


def read_ports(text: str) -> Ports:
    """Read LOCAL:REMOTE, REMOTE or :REMOTE, for argparse."""
    local, colon, remote = text.rpartition(":")
    port = APP_PORT if remote == "app" else _port(remote, text)
    if local:
        return Ports(_port(local, text), port)
    return Ports(0 if colon else port, port)


def _port(digits: str, text: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) < 6 and 0 < int(digits) <= _MOST_PORT):
        raise argparse.ArgumentTypeError(f"'{text}': write LOCAL:REMOTE, REMOTE or :REMOTE with ports of 1 to 65535")
    return int(digits)


def _forward(args: argparse.Namespace) -> None:
    from fal_cli.commands.runners.forwarding import forward

    with open_client(args) as client:
        args.id = resolve(client, RUNNERS, args.id, args)
    forward(args, args.ports or [Ports(0, APP_PORT)])
