"""Checks that constructors share. Faults name the request's field."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from fal_server.core.faults import InvalidArgument


def check_bounds(field: str, value: int | None, least: int, most: int | None = None) -> None:
    """Check a number; None means "not set" and is valid.

    Raises:
        InvalidArgument: it is below `least` or above `most`.
    """
    if value is None or (value >= least and (most is None or value <= most)):
        return
    wanted = f"use at least {least}" if most is None else f"it must lie between {least} and {most}"
    raise InvalidArgument(field, f"{field} is {value}: {wanted}")


@contextmanager
def inside(message: str) -> Generator[None]:
    """Prefix an InvalidArgument's field with its containing message, as in `files[0].hash`."""
    try:
        yield
    except InvalidArgument as fault:
        raise InvalidArgument(f"{message}.{fault.field}", f"{message}.{fault.message}") from None
