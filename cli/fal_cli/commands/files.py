"""`fal files`: manages the files in /data, which all runners share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fal_cli.completion import complete_ids
from fal_cli.exit_codes import CommandError
from fal_cli.ids import REMOTE_PATHS
from fal_cli.interrupts import interrupts
from fal_cli.options import add_client_options, open_client, path_type
from fal_cli.parser import FalParser, add_command, add_commands
from fal_cli.presentation.listing import Field, Listing, add_list_options, run_list, sort_items, write_items
from fal_cli.presentation.output import print_note, shown_time
from fal_cli.presentation.printable import one_line
from fal_cli.prompts import add_yes_option, confirm

if TYPE_CHECKING:
    from fal.files import Files, RemoteFile


def _updated(entry: RemoteFile) -> str:
    from datetime import datetime

    try:
        return shown_time(datetime.fromisoformat(entry.updated_at)) if entry.updated_at else ""
    except ValueError:
        return entry.updated_at  # the controller's time


_EPILOG = "Paths are absolute, as /data/models/x, or relative to /data."


FILES: Listing[RemoteFile] = Listing(
    noun="files",
    fields=(
        Field(title="Name", text=lambda entry: entry.name),
        Field(title="Type", text=lambda entry: "file" if entry.is_file else "directory"),
        Field(
            title="Size",
            text=lambda entry: f"{entry.size:,}" if entry.is_file else "-",
            sort_key=lambda entry: entry.size,
            right=True,
        ),
        Field(title="Updated At", text=_updated, sort_key=lambda entry: entry.updated_at, folds=True),
        Field(title="Path", text=lambda entry: entry.path, wide=True),
    ),
    document=lambda entry: {
        "name": entry.name,
        "path": entry.path,
        "size": entry.size,
        "is_file": entry.is_file,
        "updated_at": entry.updated_at,
    },
    item_name=lambda entry: entry.path,
)


def add_arguments(parser: FalParser) -> None:
    """Declare `fal files` and its sub-commands."""
    parser.epilog = _EPILOG
    commands = add_commands(parser)
    listing = add_command(commands, "list", "List files.", _list, aliases=["ls"], epilog=_EPILOG)
    add_client_options(listing)
    complete_ids(listing.add_argument("path", nargs="?", default="/", help="The path to list"), REMOTE_PATHS)
    add_list_options(listing, FILES)
    download = add_command(commands, "download", "Download files.", _download, epilog=_EPILOG)
    add_client_options(download)
    complete_ids(download.add_argument("remote_path", help="Remote path to download"), REMOTE_PATHS)
    download.add_argument("local_path", type=path_type, help="Local path to download to")
    upload = add_command(commands, "upload", "Upload files.", _upload, epilog=_EPILOG)
    add_client_options(upload)
    upload.add_argument("local_path", type=path_type, help="Local path to upload")
    complete_ids(upload.add_argument("remote_path", help="Remote path to upload to"), REMOTE_PATHS)
    upload_url = add_command(commands, "upload-url", "Upload file from URL.", _upload_url, epilog=_EPILOG)
    add_client_options(upload_url)
    upload_url.add_argument("url", help="URL to upload")
    complete_ids(upload_url.add_argument("remote_path", help="Remote path to upload to"), REMOTE_PATHS)
    move = add_command(commands, "mv", "Move or rename a remote file or directory.", _move, epilog=_EPILOG)
    add_client_options(move)
    complete_ids(move.add_argument("source", help="Remote source path"), REMOTE_PATHS)
    complete_ids(move.add_argument("destination", help="Remote destination path"), REMOTE_PATHS)
    remove = add_command(commands, "rm", "Recursively remove a remote file or directory.", _remove, epilog=_EPILOG)
    add_client_options(remove)
    add_yes_option(remove)
    complete_ids(remove.add_argument("path", help="Remote path"), REMOTE_PATHS)


@contextmanager
def _files(args: argparse.Namespace) -> Generator[Files]:
    from fal.files import Files

    with open_client(args) as client:
        yield Files(client.rest())
    sys.stdout.flush()


def _list(args: argparse.Namespace) -> None:
    from fal.files import Files

    run_list(args, lambda client: Files(client.rest()).entries(args.path), lambda entries: _write(args, entries))


def _write(args: argparse.Namespace, entries: Sequence[RemoteFile]) -> None:
    if args.output == "pretty" and not args.columns and not sys.stdout.isatty():
        # The published client's format.
        sys.stdout.writelines(f"{one_line(entry.name)}\n" for entry in sort_items(args, FILES, entries))
    else:
        write_items(args, FILES, entries)


def _download(args: argparse.Namespace) -> None:
    # An incomplete file is removed.
    with _files(args) as files, _local_errors(), interrupts.deferred(), interrupts.interruptible():
        files.download(args.remote_path, args.local_path)
    print_note(f"Downloaded {args.remote_path} to {args.local_path}.")


def _upload(args: argparse.Namespace) -> None:
    with _files(args) as files, _local_errors():
        files.upload(args.local_path, args.remote_path)
    print_note(f"Uploaded {args.local_path} to {args.remote_path}.")


def _upload_url(args: argparse.Namespace) -> None:
    with _files(args) as files:
        files.upload_url(args.url, args.remote_path)
    print_note(f"Uploaded {args.url} to {args.remote_path}.")


def _move(args: argparse.Namespace) -> None:
    with _files(args) as files:
        files.move(args.source, args.destination)
    print_note(f"Moved {args.source} to {args.destination}.")


def _remove(args: argparse.Namespace) -> None:
    with _files(args) as files:
        confirm(args, lambda: _removal(files.find(args.path)))
        files.remove(args.path)
    print_note(f"Removed {args.path}.")


def _removal(found: RemoteFile) -> str:
    return f"Remove {found.path}?" if found.is_file else f"Remove {found.path} and everything in it?"


@contextmanager
def _local_errors() -> Generator[None]:
    """Turn errors of the local file system into command errors."""
    try:
        yield
    except OSError as error:
        raise CommandError(f"{error.filename or 'a local file'}: {error.strerror or error}") from None
