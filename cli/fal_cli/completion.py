"""Completes a `fal` command line for a shell."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal_cli.ids import Kind

_CONNECT_SECONDS = 0.3
_ANSWER_SECONDS = 2.0


def complete() -> None:
    """Write the completions of COMP_LINE to the shell, and end the process."""
    import argcomplete

    from fal_cli.main import build_parser

    parser = build_parser(os.environ.get("COMP_LINE", "").split())
    argcomplete.autocomplete(parser, always_complete_options=True, print_suppressed=True)


def complete_ids(action: argparse.Action, kind: Kind) -> None:
    """Let a shell complete an argument from ids or names. The controller lists them."""

    def completer(prefix: str, parsed_args: argparse.Namespace, **_: object) -> list[str]:
        return _ask(kind, prefix, parsed_args)

    vars(action)["completer"] = completer


def complete_places(action: argparse.Action, kind: Kind) -> None:
    """Let a shell complete a local file or a runner's path. The latter is an id followed by a colon and a path."""

    def completer(prefix: str, parsed_args: argparse.Namespace, **_: object) -> list[str]:
        from argcomplete.completers import FilesCompleter

        return [*(f"{found}:" for found in _ask(kind, prefix, parsed_args)), *FilesCompleter()(prefix)]

    vars(action)["completer"] = completer


def complete_words(action: argparse.Action, words: Callable[[], Iterable[str]]) -> None:
    """Let a shell complete an argument with known words. Of a comma-separated one, it completes the last part."""

    def completer(prefix: str, **_: object) -> list[str]:
        before, comma, last = prefix.rpartition(",")
        return [f"{before}{comma}{word}" for word in words() if word.startswith(last)]

    vars(action)["completer"] = completer


def profile_names() -> list[str]:
    """Return the configuration file's profiles; none if it cannot be read."""
    from fal.api import FalError
    from fal.config import load

    try:
        return list(load().profiles)
    except (FalError, OSError):
        return []


def _ask(kind: Kind, prefix: str, args: argparse.Namespace) -> list[str]:
    """Return the ids with a prefix. There are none if the controller is slow, because a person waits for TAB."""
    import threading

    found: list[str] = []
    # A thread limits the time that a client takes; the process ends without it.
    thread = threading.Thread(target=_collect, args=(kind, prefix, args, found), daemon=True)
    thread.start()
    thread.join(_answer_seconds())
    return list(found)


def _answer_seconds() -> float:
    try:
        return max(0.0, float(os.environ.get("FAL_COMPLETION_SECONDS", _ANSWER_SECONDS)))
    except ValueError:
        return _ANSWER_SECONDS


def _collect(kind: Kind, prefix: str, args: argparse.Namespace, found: list[str]) -> None:
    import socket

    from fal.api import FalError
    from fal_cli.options import open_client

    args = argparse.Namespace(**{"host": None, "team": None, **vars(args), "typed": prefix})
    try:
        with open_client(args) as client:
            target = client.settings.target
            # gRPC would retry a refused connection; this does not.
            socket.create_connection((target.host, target.port), _CONNECT_SECONDS).close()
            for lister in kind.listers[:1]:
                found.extend(item.id for item in lister(client, args) if item.id.startswith(prefix))
    except (FalError, OSError):
        return
