"""Turns exceptions into a message on standard error and an exit code."""

from __future__ import annotations

import sys

from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.other_package import other_package
from fal_cli.presentation.output import print_error

# Modules of the app extra. If one of an app's own modules is missing, loading the app reports it.
_APP_MODULES = frozenset({"cloudpickle", "fastapi", "pydantic", "starlette", "uvicorn"})


def report(error: Exception, *, debug: bool) -> int:
    """Write an error and return its exit code.

    Args:
        error: the exception.
        debug: whether to write the traceback, too.
    """
    if debug:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, CommandError):
        print_error(str(error))
        return error.code
    if isinstance(error, ModuleNotFoundError) and error.name in _APP_MODULES:
        print_error(f"this needs the app extra ({error.name} is missing): pip install 'fal-grpc[app]'")
    elif _is_expected(error):
        print_error(message_of(error))
        if _is_a("ArgumentError", error):
            return ExitCode.USAGE
    else:
        print_error(f"unexpected {type(error).__name__}: {error}\n{_advice()}")
    return ExitCode.FAILED


def _advice() -> str:
    if (other := other_package()) is not None:
        return (
            f"The package fal {other} is in the same environment and overwrote a part of this one.\n"
            "Use an environment for each: pip uninstall fal fal-grpc, then install one of them again."
        )
    return "Run the command again with --debug to see where."


def message_of(error: Exception) -> str:
    """Return an error's text for users, with its file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _is_expected(error: Exception) -> bool:
    """Return whether the error's text is written for users."""
    return isinstance(error, OSError) or _is_a("FalError", error)


def _is_a(name: str, error: Exception) -> bool:
    """Return whether this is the SDK's error of that name. The SDK is not imported to check."""
    kind = getattr(sys.modules.get("fal_grpc.errors"), name, None)
    return isinstance(kind, type) and isinstance(error, kind)
