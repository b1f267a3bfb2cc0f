"""`fal doctor`: shows versions, and the host and key in use, without calling anything."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Mapping
from importlib.util import find_spec

from fal_cli.options import add_output_options
from fal_cli.parser import FalParser
from fal_cli.presentation.output import write_document
from fal_cli.presentation.printable import one_line
from fal_cli.version import VERSION

# A module of each extra that nothing else installs.
_EXTRAS = {"app": "cloudpickle", "controller": "sqlalchemy"}


def add_arguments(parser: FalParser) -> None:
    """Declare `fal doctor`."""
    add_output_options(parser)
    parser.set_defaults(handler=_doctor)


def _doctor(args: argparse.Namespace) -> None:
    document: dict[str, object] = {
        "fal": VERSION,
        "isolate": _version_of("isolate"),
        "grpcio": _version_of("grpcio"),
        "protobuf": _version_of("protobuf"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{f"extra {name}": find_spec(module) is not None for name, module in _EXTRAS.items()},
        **_settings(),
    }
    if args.output != "pretty":
        write_document(args.output, document)
        return
    width = max(map(len, document))
    for name, value in document.items():
        shown = {True: "installed", False: "not installed", None: "-"}.get(value, value)  # type: ignore[call-overload]
        sys.stdout.write(f"{name:<{width}}  {one_line(str(shown))}\n")


def _version_of(distribution: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _settings() -> Mapping[str, object]:
    """Return host, key id and profile with their sources, and a problem if a setting is malformed."""
    from fal.config import config_path, load
    from fal.settings import find_credentials, find_profile, find_target
    from fal_grpc.credentials import KeyCredentials
    from fal_grpc.errors import FalError, MissingCredentialsError

    found: dict[str, object] = {"config file": str(config_path())}
    try:
        config = load()
        profile, profile_by = find_profile(config, None, os.environ)
        target, target_by = find_target(config, profile, None, os.environ)
    except FalError as error:
        return {**found, "problem": str(error)}
    found |= {
        "profile": profile,
        "profile from": profile_by if profile else None,
        "FAL_HOST": str(target),
        "FAL_HOST from": target_by,
        "plaintext": "yes" if target.plaintext else "no",
        "FAL_KEY": "",
        "FAL_KEY from": None,
    }
    try:
        credentials, credentials_by = find_credentials(config, profile, None, os.environ)
    except MissingCredentialsError:
        return found
    except FalError as error:
        return {**found, "problem": str(error)}
    key_id = credentials.key_id if isinstance(credentials, KeyCredentials) else ""
    return {**found, "FAL_KEY": key_id, "FAL_KEY from": credentials_by}
