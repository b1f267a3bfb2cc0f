"""`fal env`: prints shell exports. They point fal clients at the controller on this machine."""

from __future__ import annotations

import argparse
import shlex
import sys

from fal_cli.controller_process import add_state_dir_option, require_controller
from fal_cli.parser import FalParser

_EPILOG = """\
Examples:
  eval "$(fal env)"
  fal runners list"""


def add_arguments(parser: FalParser) -> None:
    """Declare `fal env`."""
    parser.description = "Print shell exports that point this client, and the published ones, at the controller."
    parser.epilog = _EPILOG
    add_state_dir_option(parser)
    parser.set_defaults(handler=_env)


def _env(args: argparse.Namespace) -> None:
    controller = require_controller(args.state_dir)
    exports = {
        "FAL_GRPC_HOST": controller.host,
        "FAL_REST_HOST": controller.host,
        "FAL_KEY": controller.key(),
        "FAL_RUN_HOST": controller.host,
        "FAL_QUEUE_RUN_HOST": f"{controller.host}/queue",
        "FAL_WS_RUN_HOST": controller.host,
    }
    if not controller.tls:
        # Makes the published client speak plaintext to loopback, as this client does by default.
        exports["ISOLATE_TEST_MODE"] = "1"
    else:
        exports["FAL_GRPC_TLS"] = "1"  # for this client; the published one speaks TLS by default
    if controller.ca_file is not None:
        exports["SSL_CERT_FILE"] = str(controller.bundle)
        exports["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"] = str(controller.bundle)
    sys.stdout.write("".join(f"export {name}={shlex.quote(value)}\n" for name, value in exports.items()))
