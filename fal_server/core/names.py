"""Checks users' names; an app's full name includes its environment."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from fal_server.core.faults import InvalidArgument

MAIN = "main"
SEPARATOR = "--"
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,126}[A-Za-z0-9])?")
_ENVIRONMENT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_REGION = re.compile(r"[0-9a-z]([0-9a-z-]{0,61}[0-9a-z])?")
_NO_REGION = "none"
_SECRET = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_RESERVED_SECRETS = re.compile(
    r"(FAL_RUNNER_\w*|FAL_SHIM_\w*|IS_ISOLATE_AGENT|LD_PRELOAD|LD_LIBRARY_PATH|PYTHONPATH|PATH)"
)
_HOST_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"{_HOST_LABEL}(?:\.{_HOST_LABEL})*")
_LONGEST_HOST_NAME = 253


def environment_name(name: str, field: str = "environment_name") -> str:
    """Check an environment's name; an empty one means `main`.

    Raises:
        InvalidArgument: it is not 1 to 64 lower-case letters, digits and inner hyphens, or has the separator `--`.
    """
    if not name:
        return MAIN
    if not _ENVIRONMENT.fullmatch(name) or SEPARATOR in name:
        raise InvalidArgument(
            field,
            f"{field} {_shown(name)} is not an environment's name: use 1 to 64 of a-z, 0-9 and single hyphens",
        )
    return name


def app_name(name: str, environment: str, field: str = "application_name") -> str:
    """Return an app's full name: `name` in `main`, `name--env` elsewhere; a missing suffix is added.

    Raises:
        InvalidArgument: it is empty or too long, has characters other than letters, digits, `_`, `.` and `-`, or has
            the suffix of another environment.
    """
    if not name:
        raise InvalidArgument(field, f"{field} is empty: name the app")
    base, separator, suffix = name.rpartition(SEPARATOR)
    base = base if separator else name
    if not _LABEL.fullmatch(base) or SEPARATOR in base:
        raise InvalidArgument(
            field,
            f"{field} {_shown(name)} is not an app's name: use 1 to 128 letters, digits, '_', '.' and single hyphens, "
            "with a letter or digit at both ends, then, outside main, '--' and the environment",
        )
    if not separator:
        return name if environment == MAIN else f"{name}{SEPARATOR}{environment}"
    if not _ENVIRONMENT.fullmatch(suffix):
        raise InvalidArgument(
            field, f"{field} {_shown(name)}: {_shown(suffix)}, after '--', is not an environment's name"
        )
    if environment == MAIN and suffix != MAIN:
        return name
    if suffix != environment:
        raise InvalidArgument(
            field, f"{field} {_shown(name)} ends in the name of another environment than {environment!r}"
        )
    return base if environment == MAIN else name


def split_app_name(name: str) -> tuple[str, str]:
    """Split an app's full name into its bare name and its environment."""
    base, separator, suffix = name.rpartition(SEPARATOR)
    return (base, suffix) if separator else (name, MAIN)


def secret_name(name: str, field: str = "name") -> str:
    """Check a secret's name, which becomes an environment variable of the runner.

    Raises:
        InvalidArgument: it is empty, not a valid variable name, or one that the runner itself depends on.
    """
    if not name:
        raise InvalidArgument(field, f"{field} is empty: name the secret")
    if not _SECRET.fullmatch(name):
        raise InvalidArgument(
            field,
            f"{field} {_shown(name)} cannot be an environment variable: use letters, digits and '_', not a digit first",
        )
    if _RESERVED_SECRETS.fullmatch(name):
        raise InvalidArgument(field, f"{field} {name!r} is reserved for the runner itself: choose another name")
    return name


def region_name(name: str, field: str = "region") -> str:
    """Check the name of a region.

    Raises:
        InvalidArgument: it is not 1 to 63 lower-case letters, digits and inner hyphens, or means something else.
    """
    if name == _NO_REGION:
        raise InvalidArgument(field, f"{name!r} is how a machine without a region is shown: use another name")
    if not _REGION.fullmatch(name):
        raise InvalidArgument(
            field, f"{_shown(name)} is not a name such as us-east: at most 63 small letters, digits and hyphens"
        )
    return name


def region_names(names: Iterable[str]) -> None:
    """Check the names of an app's regions.

    Raises:
        InvalidArgument: one is not a name, or is empty and so means any.
    """
    for name in names:
        if not name:
            raise InvalidArgument("regions", "regions has an empty name, which means any region: give it alone")
        try:
            region_name(name)
        except InvalidArgument as fault:
            raise InvalidArgument("regions", f"regions: {fault.message}") from None


def identifier(value: str, field: str) -> str:
    """Check an id that an earlier call returned.

    Raises:
        InvalidArgument: it is empty, longer than 128 characters, or contains a character that no id has.
    """
    if not value:
        raise InvalidArgument(field, f"{field} is empty")
    if len(value) > 128 or not re.fullmatch(r"[A-Za-z0-9_.:-]+", value):
        raise InvalidArgument(field, f"{field} {_shown(value)} is not an id that this controller gave out")
    return value


def _shown(value: str) -> str:
    """Return a user's text for a message. It is quoted, without control characters, and has at most 80 characters."""
    return repr(value if len(value) <= 80 else value[:77] + "...")


def checked_text(value: str, field: str, most: int) -> str:
    """Check a note or description.

    Args:
        value: the text.
        field: the request's field, for the error.
        most: the most characters.

    Raises:
        InvalidArgument: it is too long or contains control characters.
    """
    if len(value) > most:
        raise InvalidArgument(field, f"{field} has {len(value)} characters: use at most {most}")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise InvalidArgument(field, f"{field} holds control characters: leave them out")
    return value


def is_host_name(name: str) -> bool:
    """Return whether it is a bare host name (RFC 1123, 2.1). It has no scheme and port; other scripts are xn--."""
    return len(name) <= _LONGEST_HOST_NAME and _HOST_NAME.fullmatch(name) is not None
