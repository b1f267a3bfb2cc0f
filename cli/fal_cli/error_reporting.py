"""Turns exceptions into what a user reads on standard error, and into an exit code."""

from __future__ import annotations

import sys

from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.presentation.output import complain

# What the app extra brings; an app's own missing modules are told by the error of loading it.
_APP_MODULES = frozenset({"cloudpickle", "fastapi", "pydantic", "starlette", "uvicorn"})


def report(error: Exception, *, debug: bool) -> int:
    """Write an error and return the exit code for it.

    Args:
        error: what was raised.
        debug: whether the traceback is written too.
    """
    if debug:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, CommandError):
        complain(str(error))
        return error.code
    if isinstance(error, ModuleNotFoundError) and error.name in _APP_MODULES:
        complain(f"this needs the app extra ({error.name} is missing): pip install 'fal-grpc[app]'")
    elif _is_expected(error):
        complain(_words(error))
        if _is_a("ArgumentError", error):
            return ExitCode.USAGE
    else:
        complain(f"unexpected {type(error).__name__}: {error}\nRun the command again with --debug to see where.")
    return ExitCode.FAILED


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _is_expected(error: Exception) -> bool:
    """Whether it was raised to be read."""
    return isinstance(error, OSError) or _is_a("FalError", error)


def _is_a(name: str, error: Exception) -> bool:
    """Whether it is the SDK's error of this name. Looked up among what is imported: an error has a module."""
    kind = getattr(sys.modules.get("fal_grpc.errors"), name, None)
    return isinstance(kind, type) and isinstance(error, kind)
