"""`fal api`: call an app by its queue, directly, as a stream, or message by message."""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fal.api import name_in_environment
from fal.hosts import find_hosts
from fal_cli.commands.api.app_ids import nickname_of, split_id
from fal_cli.commands.api.fields import parse_fields
from fal_cli.commands.api.http_calls import Answer, ApiCalls, detail_of
from fal_cli.completion import complete_ids
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.ids import APPS, ENVIRONMENTS
from fal_cli.interrupts import Started, interrupts
from fal_cli.options import add_client_options, open_client, seconds_type
from fal_cli.parser import FalParser
from fal_cli.presentation.output import print_note, write_line

if TYPE_CHECKING:
    from fal.api import JSON, SyncServerlessClient

_EPILOG = """\
Arguments:
  key=text          a text; key[inner]=text nests, key[]=text adds to a list
  key:=JSON         a number, a boolean, a list: seed:=42 'sizes:=[1, 2]'
  key=@FILE         a file's text, or a data URI if it is not text; key:=@FILE takes JSON

Examples:
  fal api local/hello name=Ada
  fal api local/stream/stream count:=3
  echo '{"x": 1}' | fal api local/realtime --realtime"""
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0


class HttpStatusError(CommandError):
    """Report an answer with an error status.

    Args:
        message: see `CommandError`.
        status: the HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def add_arguments(parser: FalParser) -> None:
    """Declare `fal api`."""
    parser.description = (
        "Call an app and print its answer: by its queue, so that the call outlives a lost connection or runner; an id "
        "that ends in /stream prints events as they come."
    )
    parser.epilog = _EPILOG
    parser.set_defaults(handler=_api)
    add_client_options(parser)
    # FAL_ENV is not its default: the app may be another owner's.
    complete_ids(parser.add_argument("--env", help="Environment of the app (defaults to main)."), ENVIRONMENTS)
    complete_ids(parser.add_argument("model_id", help="OWNER/APP, or OWNER/APP/PATH; APP alone is your own."), APPS)
    parser.add_argument("arguments", nargs="*", metavar="key=value", help="The call's arguments.")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--direct", action="store_true", help="Call a runner at once, without the queue.")
    how.add_argument(
        "--realtime", action="store_true", help="Send each line of standard input as a message; answers are lines too."
    )
    parser.add_argument("--priority", choices=("normal", "low"), help="The call's place in the queue.")
    parser.add_argument(
        "--start-timeout", type=seconds_type, metavar="SECONDS", help="Give up if no runner takes the call in time."
    )
    parser.add_argument("--hint", help="Prefer runners that are warm for this word.")


def _api(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        settings = client.settings
        hosts = find_hosts(settings)
        nickname = None if "/" in args.model_id.strip("/") else nickname_of(client)
        path, app = split_id(args.model_id, nickname)
        rest = path.removeprefix(app)
        app = name_in_environment(app, args.env)
        path = app + rest
        fields = parse_fields(args.arguments)
        if args.realtime:
            if fields:
                raise CommandError(
                    "--realtime takes its messages from standard input, not from arguments", ExitCode.USAGE
                )
            from fal_cli.commands.api.realtime import converse

            return converse(settings, hosts, path)
        calls = ApiCalls(settings)
        try:
            if path.endswith("/stream") or args.direct:
                with calls.call("POST", f"{hosts.run}/{path}", fields, headers=_headers(args)) as answer:
                    _show(answer, args.model_id)
                return ExitCode.OK
            return _queued(calls, f"{hosts.queue}/{path}", f"{hosts.queue}/{app}", fields, args)
        except CommandError as error:
            raise _with_hint(client, args.model_id, error) from None
        finally:
            calls.close()


def _with_hint(client: SyncServerlessClient, model_id: str, error: CommandError) -> CommandError:
    """Add what was probably meant if the first word of an unknown id is one of the caller's apps."""
    from fal.api import FalError

    owner, _, rest = model_id.strip("/").partition("/")
    if not (isinstance(error, HttpStatusError) and error.status == 404 and rest):
        return error
    try:
        nickname = nickname_of(client)
        if nickname is None or owner not in {app.alias for app in client.apps.list()}:
            return error
    except FalError:
        return error
    return CommandError(f"{error}\n'{owner}' is an app of yours: did you mean {nickname}/{owner}/{rest}?")


def _headers(args: argparse.Namespace) -> dict[str, str]:
    headers: dict[str, str] = {}
    if args.start_timeout is not None:
        headers["X-Fal-Request-Timeout"] = f"{args.start_timeout:g}"
    if args.hint:
        headers["X-Fal-Runner-Hint"] = args.hint
    if args.priority and not args.direct:
        headers["X-Fal-Queue-Priority"] = args.priority
    return headers


def _queued(calls: ApiCalls, submit: str, app: str, fields: JSON, args: argparse.Namespace) -> int:
    """Queue, follow to the end, print the result. Ctrl-C, SIGTERM and SIGHUP cancel the request."""

    def queue() -> str:
        with calls.call("POST", submit, fields, headers=_headers(args)) as answer:
            submitted = _document(answer, args.model_id)
        request_id = submitted.get("request_id")
        if not isinstance(request_id, str) or "/" in request_id:
            raise CommandError(f"{args.model_id}: the queue did not say which request this is")
        return request_id

    with interrupts.deferred():
        started = Started(queue)
        try:
            with interrupts.interruptible():
                request_id = started.result()
                # Built here, not taken from the answer, so that the key goes to no other host.
                url = f"{app}/requests/{request_id}"
                print_note(f"Request {request_id}")
                _follow(calls, f"{url}/status?logs=1", args.model_id)
                with calls.call("GET", url) as answer:
                    _show(answer, args.model_id)
        except (KeyboardInterrupt, SystemExit):
            if (queued := started.settled()) is not None:
                _cancel(calls, f"{app}/requests/{queued}")
            raise
    return ExitCode.OK


def _cancel(calls: ApiCalls, url: str) -> None:
    request_id = url.rpartition("/")[2]
    calls.close()  # an answer may have been read only in part
    try:
        with calls.call("PUT", f"{url}/cancel") as answer:
            cancelled = answer.status == 202
    except CommandError as error:
        print_note(f"Request {request_id} could not be cancelled: {error}")
        return
    print_note(
        f"Asked to cancel request {request_id}"
        if cancelled
        else f"Request {request_id} could not be cancelled: it may have ended"
    )


def _follow(calls: ApiCalls, url: str, model_id: str) -> None:
    """Show position, why the request waits, and logs until it is completed."""
    shown, progress, reason, pause = 0, "", "", _FIRST_PAUSE_SECONDS
    while True:
        with calls.call("GET", url) as answer:
            status = _document(answer, model_id)
        logs = status.get("logs")
        lines = logs if isinstance(logs, list) else []
        news = [str(line.get("message", "")) if isinstance(line, dict) else str(line) for line in lines[shown:]]
        shown = max(shown, len(lines))
        latest = _progress(status)
        if latest and latest != progress:
            progress = latest
            news.append(latest)
        if (why := status.get("reason")) and isinstance(why, str) and why != reason:
            reason = why
            news.append(_waits(why, status.get("next_try_at")))
        for text in news:
            print_note(text)
        if status.get("status") == "COMPLETED":
            return
        time.sleep(_FIRST_PAUSE_SECONDS if news else pause)  # asking survives restarts, which end a stream
        pause = _FIRST_PAUSE_SECONDS if news else min(_LONGEST_PAUSE_SECONDS, pause * 1.5)


def _waits(reason: str, next_try_at: JSON) -> str:
    """Return why a request waits, as a sentence with the time until the next try."""
    from fal.rest_messages import parse_time

    at = parse_time(next_try_at)
    seconds = 0.0 if at is None else (at - datetime.now(UTC)).total_seconds()
    again = f"; again in {seconds:.1f} s" if seconds > 0 else ""
    return f"{reason[:1].upper()}{reason[1:]}{again}"


def _progress(status: dict[str, JSON]) -> str:
    if status.get("status") == "IN_QUEUE":
        position = status.get("queue_position")
        return f"In queue, {position} ahead" if isinstance(position, int) else "In queue"
    return "In progress" if status.get("status") == "IN_PROGRESS" else ""


def _document(answer: Answer, model_id: str) -> dict[str, JSON]:
    content = answer.read()
    _raise_for_status(answer, content, model_id)
    try:
        found: JSON = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CommandError(f"{model_id}: the queue answered with something that is not a JSON object")
    return found


def _raise_for_status(answer: Answer, content: bytes, model_id: str) -> None:
    if answer.status >= 300:
        request = f" (request {answer.request_id})" if answer.request_id else ""
        detail = detail_of(content) or "no details"
        raise HttpStatusError(f"{model_id} answered {answer.status}: {detail}{request}", answer.status)


def _show(answer: Answer, model_id: str) -> None:
    """Print an answer: JSON as JSON, events as lines, anything else unchanged."""
    if answer.status < 300 and answer.content_type == "text/event-stream":
        for name, data in answer.events():
            if name == "error":
                raise CommandError(f"{model_id} broke off: {data}")
            _show_event(data)
        return
    content = answer.read()
    _raise_for_status(answer, content, model_id)
    try:
        value: JSON = json.loads(content)
    except ValueError:
        _show_bytes(content, answer.content_type)
        return
    if sys.stdout.isatty():
        sys.stdout.write(json.dumps(value, indent=2) + "\n")
    else:
        write_line(value)


def _show_event(data: str) -> None:
    try:
        write_line(json.loads(data))
    except ValueError:
        write_line(data)
    sys.stdout.flush()


def _show_bytes(content: bytes, content_type: str) -> None:
    if content and sys.stdout.isatty():
        raise CommandError(
            f"the answer is {len(content)} bytes of {content_type or 'no type'}: send them to a file with >"
        )
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
