"""Answers a shell that completes a command line of `fal`, without importing gRPC."""

from __future__ import annotations

import os

import argcomplete

from fal_cli.main import build_parser


def complete() -> None:
    """Write the completions of COMP_LINE to the shell, and end the process."""
    argcomplete.autocomplete(build_parser(os.environ.get("COMP_LINE", "").split()), always_complete_options=True)
