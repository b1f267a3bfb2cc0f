"""`fal runners gpus` and `fal apps gpus`: how many GPUs are in use, by model."""

from __future__ import annotations

import argparse

from fal_cli.client import open_client
from fal_cli.presentation.output import say, write_document, write_table
from fal_cli.presentation.table import Column

_COLUMNS = (Column(title="Type"), Column(title="Count", right=True))


def show_gpus(args: argparse.Namespace) -> None:
    """Show those of one app (`args.app_name`), or of all.

    Raises:
        NotFoundError: no app of that name has runners.
    """
    with open_client(args) as client:
        name: str | None = getattr(args, "app_name", None)
        used = client.runners.gpus() if name is None else client.apps.gpus(name)
    if args.output != "pretty":
        write_document(args.output, {**used})
        return
    write_table(_COLUMNS, ([model, str(count)] for model, count in used["gpus"].items()))
    say(f"Total: {used['total']}")
