"""`fal down`: stops the controller on this machine. It also stops its runners, unless told to keep them."""

from __future__ import annotations

import argparse

from fal_cli.controller_process import ControllerProcess, add_state_dir_option, find_controller, stop
from fal_cli.exit_codes import CommandError
from fal_cli.parser import FalParser
from fal_cli.presentation.output import print_note


def add_arguments(parser: FalParser) -> None:
    """Declare `fal down`."""
    parser.description = "Stop the controller on this machine. Its runners finish the requests in flight and end."
    add_state_dir_option(parser)
    parser.add_argument(
        "--timeout",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="How long to wait until it has ended (defaults to 120).",
    )
    parser.add_argument(
        "--keep-runners",
        action="store_true",
        help="Leave the runners serving: the next `fal up` on this directory takes them over, as after an upgrade.",
    )
    parser.add_argument(
        "--now",
        action="store_true",
        help="Do not wait: cut off requests in flight and kill runners.",
    )
    parser.add_argument(
        "--uninstall", action="store_true", help="Remove the systemd unit that `fal up --install` made, too."
    )
    parser.set_defaults(handler=_down)


def _down(args: argparse.Namespace) -> None:
    service = None
    if args.uninstall:
        from fal_cli.service import Service

        service = Service.of(args.state_dir)
        service.require_installed()
    controller = find_controller(args.state_dir)
    if controller is not None:
        _stop(args, controller)
    elif service is None:
        print_note(f"No controller runs on {args.state_dir}.")
    if service is not None:
        service.uninstall()


def _stop(args: argparse.Namespace, controller: ControllerProcess) -> None:
    if controller.standby:
        print_note(f"Stopping the controller (pid {controller.pid}), which waits for {controller.standby} ...")
    runners = "; its runners go on" if args.keep_runners else " and its runners"
    if controller.stopping:
        print_note(f"The controller (pid {controller.pid}) is stopping already.")
    elif not controller.standby:
        print_note(f"Stopping the controller (pid {controller.pid}){runners} ...")
    gone = stop(
        controller,
        timeout_seconds=args.timeout,
        keep_runners=args.keep_runners,
        at_once=args.now,
        report=None if args.now else lambda what: print_note(f"It waits for {what} ..."),
    )
    if not gone:
        raise CommandError(
            f"the controller (pid {controller.pid}) is still stopping after {args.timeout:g} seconds; its log is "
            f"{args.state_dir / 'controller.log'}. `fal down` waits longer, `fal down --now` does not wait."
        )
    print_note("Stopped.")
