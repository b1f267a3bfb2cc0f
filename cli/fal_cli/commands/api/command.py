"""`fal api`: call an app by its queue, directly, as a stream, or message by message."""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fal_cli.commands.api.fields import parse_fields
from fal_cli.commands.api.hosts import find_hosts, nickname_of, split_id
from fal_cli.commands.api.http_calls import Answer, ApiCalls, detail_of
from fal_cli.completion import complete_ids
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.ids import ENVIRONMENTS
from fal_cli.interrupts import Started, interrupts
from fal_cli.options import add_client_options, in_environment, open_client, seconds_type
from fal_cli.parser import FalParser
from fal_cli.presentation.output import print_note, write_line

if TYPE_CHECKING:
    from fal.api import SyncServerlessClient
    from fal_grpc.adapter.values import JSON

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
    parser.add_argument("model_id", help="OWNER/APP, or OWNER/APP/PATH; APP alone is your own.")
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
        app = in_environment(app, args.env)
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
            return _queued(client, calls, f"{hosts.queue}/{path}", f"{hosts.queue}/{app}", fields, args)
        except CommandError as error:
            raise _with_hint(client, args.model_id, error) from None
        finally:
            calls.close()


def _with_hint(client: SyncServerlessClient, model_id: str, error: CommandError) -> CommandError:
    """Add what was probably meant if the first word of an unknown id is one of the caller's apps."""
    from fal_grpc.errors import FalError

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


def _queued(
    client: SyncServerlessClient, calls: ApiCalls, submit: str, app: str, fields: JSON, args: argparse.Namespace
) -> int:
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
                failures = _Failures(client, app.rpartition("/")[2], request_id)
                _follow(calls, f"{url}/status?logs=1", args.model_id, failures)
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


class _Failures:
    """Look up why attempts of a queued request failed; the status of the queue does not say it."""

    def __init__(self, client: SyncServerlessClient, app_name: str, request_id: str) -> None:
        self._client = client
        self._app_name = app_name
        self._request_id = request_id
        self._shown = 0
        self._known = True

    def latest(self) -> str | None:
        """Return a sentence on the last failed attempt if it is new."""
        from fal_grpc.errors import FalError

        if not self._known:
            return None
        try:
            request = self._client.queue.get(self._app_name, self._request_id)
        except FalError:
            self._known = False  # only the owner of an app may ask
            return None
        if not request.error or request.attempt <= self._shown or request.state.value != "IN_QUEUE":
            return None
        self._shown = request.attempt
        pause = (request.not_before - datetime.now(UTC)).total_seconds() if request.not_before else 0.0
        again = f"again in {pause:.1f} s" if pause > 0 else "trying again"
        return f"Attempt {request.attempt} failed: {request.error}; {again}"


def _follow(calls: ApiCalls, url: str, model_id: str, failures: _Failures) -> None:
    """Show position, failed attempts and logs until the request is completed."""
    shown, progress, pause = 0, "", _FIRST_PAUSE_SECONDS
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
        elif status.get("status") == "IN_QUEUE" and (failure := failures.latest()) is not None:
            news.append(failure)
        for text in news:
            print_note(text)
        if status.get("status") == "COMPLETED":
            return
        time.sleep(_FIRST_PAUSE_SECONDS if news else pause)
        pause = _FIRST_PAUSE_SECONDS if news else min(_LONGEST_PAUSE_SECONDS, pause * 1.5)


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
