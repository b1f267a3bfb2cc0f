"""`fal run`: calls a function, or serves an app, without deploying it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.interrupts import interrupts
from fal_cli.options import add_client_options, add_env_option, int_type, open_client
from fal_cli.parser import FalParser
from fal_cli.presentation.output import print_last_words, print_line, print_note

if TYPE_CHECKING:
    from types import TracebackType

    from fal.api import RunResult

_EPILOG = """\
Examples:
  fal run path/to/myfile.py::myfunc
  fal run path/to/myfile.py::MyApp --local --exposed-port 8000"""


def add_arguments(parser: FalParser) -> None:
    """Declare `fal run`."""
    parser.description = "Run a function and show what it returns, or serve an app until Ctrl-C; nothing is deployed."
    parser.epilog = _EPILOG
    parser.set_defaults(handler=_run)
    add_client_options(parser)
    parser.add_argument("func_ref", help="A file and a name in it (FILE.py::NAME), or a name in pyproject.toml.")
    parser.add_argument("--no-cache", action="store_true", help="Build the environment again, without the cache.")
    parser.add_argument("--app-name", help="Application name to run with.")
    parser.add_argument(
        "--auth", choices=("public", "private", "shared"), help="Who may call the application (defaults to public)."
    )
    parser.add_argument("--force-env-build", action="store_true", dest="no_cache", help=argparse.SUPPRESS)
    add_env_option(parser)
    parser.add_argument("--local", action="store_true", help="Run here, in this Python, without a controller.")
    parser.add_argument(
        "--exposed-port", type=int_type, metavar="PORT", help="The port of an app with --local (defaults to 8080)."
    )
    parser.add_argument(
        "--exposed-metrics-port",
        type=int_type,
        metavar="PORT",
        help="The port of its metrics with --local (defaults to 9090).",
    )
    parser.add_argument("--machine-type", help="Machine type to run on.")
    parser.add_argument("--forward-compat", action="store_true", help="Ask for a machine with newer GPU drivers.")
    parser.add_argument("--limit-max-requests", type=int_type, metavar="N", help="Stop an app after N requests.")


def _run(args: argparse.Namespace) -> None:
    result = _run_here(args) if args.local else _run_on_controller(args)
    if result is not None:
        print_line(str(result))


def _run_on_controller(args: argparse.Namespace) -> object:
    from fal.deploy import run
    from fal_cli.presentation.logs import write_deploy_logs
    from fal_cli.presentation.progress import BuildProgress

    if args.exposed_port is not None or args.exposed_metrics_port is not None:
        raise CommandError("--exposed-port and --exposed-metrics-port are for --local", ExitCode.USAGE)
    shown: set[str] = set()

    def show(found: RunResult) -> None:
        write_deploy_logs(found.logs)
        if found.service_urls is not None and found.service_urls.run not in shown:
            shown.add(found.service_urls.run)
            print_note(f"Serving at {found.service_urls.run}")

    ended = "\nInterrupted: the controller ends the run."
    last_words = interrupts.last_words(lambda: print_last_words(ended))
    with open_client(args) as client, last_words, BuildProgress() as progress:
        return run(
            client,
            args.func_ref,
            app_name=args.app_name,
            auth=args.auth,
            machine_type=args.machine_type,
            limit_max_requests=args.limit_max_requests,
            forward_compat=args.forward_compat,
            no_cache=args.no_cache,
            environment_name=args.env,
            result_handler=show,
            build_result_handler=progress.show,
        )


def _run_here(args: argparse.Namespace) -> object:
    from fal.deploy.load import load_app
    from fal.deploy.project import resolve_reference

    reference = resolve_reference(args.func_ref)
    if reference.path is None:
        raise CommandError(f"'{args.func_ref}' has no file here that --local could run")
    with load_app(reference.path, reference.symbol) as loaded:
        ports = {"exposed_port": args.exposed_port, "exposed_metrics_port": args.exposed_metrics_port}
        given = {name: port for name, port in ports.items() if port is not None}
        try:
            with interrupts.deferred(), interrupts.interruptible():
                return loaded.target.run_local(**given)
        except Exception as error:
            own = _frames_of(error, reference.path)
            if own is None:
                raise
            import traceback

            sys.stderr.write("".join(traceback.format_exception(type(error), error, own)))
            hint = (
                ": --local runs in this Python and installs nothing" if isinstance(error, ModuleNotFoundError) else ""
            )
            raise CommandError(f"{loaded.symbol} raised {type(error).__name__}: {error}{hint}") from None


def _frames_of(error: Exception, path: str | Path) -> TracebackType | None:
    """Return the traceback from a file's first frame on; None without one."""
    trace = error.__traceback__
    file = str(Path(path).resolve())
    while trace is not None and str(Path(trace.tb_frame.f_code.co_filename).resolve()) != file:
        trace = trace.tb_next
    return trace
