"""Answers a shell that completes a command line of `fal`; nothing is called and no gRPC imported for it."""

from __future__ import annotations

import os

import argcomplete

from fal_cli.main import build_parser


def complete() -> None:
    """Write the completions of the line in COMP_LINE to the shell, and end the process."""
    argcomplete.autocomplete(build_parser(os.environ.get("COMP_LINE", "").split()), always_complete_options=True)
