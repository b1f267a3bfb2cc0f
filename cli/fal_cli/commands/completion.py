"""`fal completion`: prints the shell code that completes fal's commands."""

from __future__ import annotations

import argparse
import sys

from fal_cli.parser import FalParser

_EPILOG = """\
Examples:
  eval "$(fal completion bash)"
  eval "$(fal completion zsh)"
  fal completion fish > ~/.config/fish/completions/fal.fish
  fal completion tcsh >> ~/.tcshrc"""


def add_arguments(parser: FalParser) -> None:
    """Declare `fal completion`."""
    parser.description = "Print the shell code that completes fal's commands, for the shell to evaluate."
    parser.epilog = _EPILOG
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh", "fish"), help="The shell.")
    parser.set_defaults(handler=_completion)


def _completion(args: argparse.Namespace) -> None:
    from argcomplete.shell_integration import shellcode

    sys.stdout.write(shellcode(["fal"], use_defaults=False, shell=args.shell) + "\n")
