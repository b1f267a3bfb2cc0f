"""`fal deploy`: builds an app's environment and registers the app. It can then be called."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fal.config import truthy
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.interrupts import interrupts
from fal_cli.options import add_client_options, add_env_option, add_output_options, name_type, open_client
from fal_cli.parser import FalParser
from fal_cli.presentation.addresses import addresses
from fal_cli.presentation.apps import app_name
from fal_cli.presentation.output import print_last_words, print_line, print_note, write_document
from fal_cli.presentation.printable import visible
from fal_cli.prompts import ask, at_terminal

if TYPE_CHECKING:
    from fal.api import BuildResult, DeployPlan, RegisteredRevision, RegisterResult, SyncServerlessClient
    from fal.deploy import DeploymentResult
    from fal.deploy.serving import WayToServe

# The exit code of terraform and diff for a difference.
_CHANGES = 2
_EPILOG = """\
Examples:
  fal deploy
  fal deploy path/to/myfile.py
  fal deploy path/to/myfile.py::MyApp --app-name myapp --auth public
  fal deploy path/to/myfile.py --plan
  fal deploy my-app --message "fix the cold start" --annotation GIT_SHA=1234567"""


def add_arguments(parser: FalParser) -> None:
    """Declare `fal deploy`."""
    parser.description = (
        "Deploy a fal application. Without a reference, the one in pyproject.toml or the only file here."
    )
    parser.epilog = _EPILOG
    parser.set_defaults(handler=_deploy)
    add_client_options(parser)
    parser.add_argument(
        "app_ref", nargs="?", help="A file, a file and a name in it (FILE.py::NAME), or a name in pyproject.toml."
    )
    parser.add_argument("--app-name", type=name_type, help="Application name to deploy with.")
    parser.add_argument("--auth", choices=("public", "private", "shared"), help="Who may call the application.")
    parser.add_argument(
        "--strategy",
        choices=("recreate", "rolling"),
        default="rolling",
        help="Move to the new revision at once, or when a runner of it is ready (the default).",
    )
    attach = parser.add_mutually_exclusive_group()
    attach.add_argument(
        "--attach", action="store_true", default=None, dest="attach", help="Wait until a rolling deployment is done."
    )
    attach.add_argument(
        "--detach", action="store_false", default=None, dest="attach", help="Do not wait for a rolling deployment."
    )
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument("--no-scale", action="store_true", help="Keep the current scale settings (the default).")
    scale.add_argument("--reset-scale", action="store_true", help="Use the scale settings of the code.")
    parser.add_argument(
        "--check",
        action="store_true",
        default=truthy(os.environ, "FAL_DEPLOY_CHECK"),
        help="Show what the deploy would change, and ask first. Can also be set via FAL_DEPLOY_CHECK.",
    )
    parser.add_argument("--yes", action="store_true", help="Do not ask.")
    parser.beyond(
        parser.add_argument(
            "--plan",
            action="store_true",
            help="Show what the deploy would change and what the controller would do then, and end. Nothing is "
            "uploaded, built or changed.",
        )
    )
    parser.beyond(
        parser.add_argument(
            "--detailed-exitcode",
            action="store_true",
            help="With --plan: exit with 0 if nothing would change, with 2 if something would.",
        )
    )
    parser.add_argument("--message", help="A note on this revision.")
    parser.add_argument(
        "--annotation",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="A named note on this revision. May be repeated.",
    )
    parser.add_argument("--no-cache", action="store_true", help="Build the environment again, without the cache.")
    parser.add_argument("--force-env-build", action="store_true", dest="no_cache", help=argparse.SUPPRESS)
    add_env_option(parser)
    add_output_options(parser)


def _deploy(args: argparse.Namespace) -> int | None:
    from fal_cli.presentation.logs import write_deploy_logs
    from fal_cli.presentation.progress import BuildProgress

    annotations = _annotations(args.annotation)
    if args.detailed_exitcode and not args.plan:
        raise CommandError("--detailed-exitcode is for --plan", ExitCode.USAGE)
    with open_client(args) as client:
        if args.plan:
            return _plan(client, args)
        if args.check:
            _check(client, args)
        # A first deployment replaces no revision, so it does not wait.
        known = {app.alias for app in client.apps.list(environment_name=args.env)} if args.attach is False else set()
        registered: list[RegisteredRevision] = []
        built: list[BuildResult] = []

        def show(found: RegisterResult) -> None:
            registered.extend([found.registered] if found.registered else [])
            write_deploy_logs(found.logs)

        def show_build(found: BuildResult) -> None:
            built.extend([found] if found.state == "SUCCESS" else [])
            progress.show(found)

        last_words = interrupts.last_words(lambda: print_last_words(_describe_interrupt(registered, sent=bool(built))))
        with last_words, BuildProgress() as progress:
            result = client.deploy(
                args.app_ref,
                app_name=args.app_name,
                auth=args.auth,
                strategy=args.strategy,
                reset_scale=args.reset_scale,
                attach_to_deployment=args.attach,
                force_env_build=args.no_cache,
                environment_name=args.env,
                message=args.message,
                annotations=annotations or None,
                result_handler=show,
                build_result_handler=show_build,
            )
    from fal.api import name_in_environment

    rolling = not known.isdisjoint({result.app_name, name_in_environment(result.app_name, args.env)})
    _show(args.output, result, "rolling_out" if rolling else "deployed")
    return None


def _plan(client: SyncServerlessClient, args: argparse.Namespace) -> int:
    from fal_cli.presentation.deploy_plan import document, lines

    found = _planned(client, args)
    if args.output == "pretty":
        print_line("\n".join(lines(found)))
    else:
        write_document(args.output, document(found))
    return _CHANGES if args.detailed_exitcode and found.changes else ExitCode.OK


def _planned(client: SyncServerlessClient, args: argparse.Namespace) -> DeployPlan:
    from fal.deploy import plan

    return plan(
        client,
        args.app_ref,
        app_name=args.app_name,
        auth=args.auth,
        strategy=args.strategy,
        reset_scale=args.reset_scale,
        environment_name=args.env,
    )


def _describe_interrupt(registered: list[RegisteredRevision], *, sent: bool) -> str:
    """Say what happens to the interrupted deploy. It continues without this command once it is stored."""
    if not registered and sent:
        return "\nInterrupted: it is not known whether there is a new revision. `fal apps list-rev` shows it."
    if not registered:
        return "\nInterrupted: nothing was deployed."
    revision = registered[0]
    app = revision.app_name
    going_on = f"\nNot waiting any longer: the deploy of {app} to revision {revision.application_id} goes on."
    if revision.previous_id is None:
        return f"{going_on}\n`fal apps delete {app}` removes the application."
    return f"{going_on}\n`fal apps set-rev {app} {revision.previous_id}` goes back."


def _annotations(pairs: list[str]) -> Mapping[str, str]:
    split = [pair.partition("=") for pair in pairs]
    wrong = next((pair for pair, (key, equals, _) in zip(pairs, split, strict=True) if not (key and equals)), None)
    if wrong is not None:
        raise CommandError(f"--annotation '{wrong}' is not of the form KEY=VALUE", ExitCode.USAGE)
    return {key: value for key, _, value in split}


def _check(client: SyncServerlessClient, args: argparse.Namespace) -> None:
    """Show the effects of the deploy, and ask whether to continue."""
    from fal.api import UnimplementedError
    from fal_cli.presentation.deploy_plan import lines

    try:
        print_note("\n".join(lines(_planned(client, args))))
    except UnimplementedError:
        print_note(_summary(client, args))
    if args.yes:
        return
    if not at_terminal():
        raise CommandError("--check asks before it deploys, and there is no terminal: add --yes", ExitCode.USAGE)
    if not ask("Deploy?"):
        raise CommandError("nothing was deployed")


def _summary(client: SyncServerlessClient, args: argparse.Namespace) -> str:
    """Return a deploy's known facts if the controller makes no plan."""
    from fal.deploy.preparation import prepare

    app = prepare(args.app_ref, app_name=args.app_name, auth=args.auth)
    known = {app_name(found): found for found in client.apps.list(environment_name=args.env)}
    current = known.get(app.app_name)
    auth = app.auth or (current.auth_mode if current else "private")
    strategy = (args.strategy == "rolling" and app.strategy) or args.strategy
    from_code = current is None or args.reset_scale or app.reset_scale
    summary = {
        "application": app.display_name,
        "name": app.app_name,
        "environment": args.env or "main",
        "controller": str(client.settings.target),
        "revision": f"a new one instead of {current.revision}" if current else "the first one of a new application",
        "auth": auth if current is None or current.auth_mode == auth else f"{auth} instead of {current.auth_mode}",
        "strategy": strategy,
        "scale": "from the code" if from_code else "as it is",
        "machine type": _texts(app.options.get("machine_type")) or "the default",
        "kind": app.kind,
        "requirements": _texts(app.options.get("requirements")) or "none",
        "files": f"{len(app.files)}" if app.files else "none",
    }
    return "About to deploy:\n" + "\n".join(f"  {name:<13} {value}" for name, value in summary.items())


def _texts(value: object) -> str:
    """Return a text, or a list of texts, in one line."""
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(_texts, value)))
    return value if isinstance(value, str) else ""


def _sent(result: DeploymentResult) -> str:
    """Say how the code traveled, which determines how a runner loads it."""
    if result.code != "modules":
        return "Its code was sent as a pickle: this controller takes no modules"
    shown = ", ".join(result.sources[:5])
    return f"Its code was sent as modules: {shown}{', ...' if len(result.sources) > 5 else ''}"


def _served(serving: WayToServe) -> str:
    """Say how an app is served, if not as usual."""
    if serving.minimal:
        return f"It is served by the minimal server, without WebSockets, forms and /openapi.json: {serving.why()}"
    return f"It is served by other versions than those here, see the build's log: {serving.why()}"


def _show(form: str, result: DeploymentResult, status: str) -> None:
    if form != "pretty":
        write_document(form, {"revision": result.revision, "app_name": result.app_name, "status": status})
        return
    print_line(
        f"{'Rolling out' if status == 'rolling_out' else 'Deployed'} {result.app_name}, revision {result.revision}"
    )
    if result.code:
        print_note(_sent(result))
    if result.serving is not None and result.serving.reason:
        print_note(_served(result.serving))
    wanted = os.environ.get("FAL_URL_OUTPUT", "all").strip().lower()
    for label, text in addresses(result, wanted):
        sys.stdout.write(visible(f"  {label:<11} {text}\n"))
