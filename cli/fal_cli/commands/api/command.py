"""`fal api`: calls an app. It does so through its queue, directly, as a stream, or message by message."""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fal.api import CallError, FalError, NotFoundError, name_in_environment
from fal.hosts import find_hosts
from fal.http import HttpClient, HttpStream
from fal.http_messages import HttpRequest
from fal_cli.commands.api.app_ids import nickname_of, split_id
from fal_cli.commands.api.fields import parse_fields
from fal_cli.completion import complete_ids
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.ids import APPS, ENVIRONMENTS
from fal_cli.interrupts import Started, interrupts
from fal_cli.options import add_client_options, name_type, open_client, seconds_type
from fal_cli.parser import FalParser
from fal_cli.presentation.output import print_note, write_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from fal.api import JSON, SyncServerlessClient
    from fal.settings import Settings

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


class _Calls:
    """Makes the HTTP calls of one `fal api`. It uses the settings' key and a kept connection."""

    def __init__(self, settings: Settings) -> None:
        self._headers = settings.credentials.headers()
        self._http = HttpClient(settings.options, keep_connections=True)
        self.close = self._http.close

    def open(
        self, method: str, url: str, fields: JSON = None, headers: Mapping[str, str] | None = None
    ) -> AbstractContextManager[HttpStream]:
        """Call without a time limit, because apps may work for long. The caller reads the response.

        Args:
            fields: the arguments of a POST.
        """
        content = json.dumps(fields).encode() if method == "POST" else None
        sent = {**self._headers, **({"Content-Type": "application/json"} if content else {}), **(headers or {})}
        request = HttpRequest(method=method, url=url, content=content, headers=sent, timeout_seconds=None)
        return self._http.stream(request)

    def ask(
        self, method: str, url: str, fields: JSON = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, JSON]:
        """Call the queue, whose responses are JSON objects."""
        with self.open(method, url, fields, headers) as answer:
            content = b"".join(answer.chunks())
        try:
            found: JSON = json.loads(content)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise CommandError("the queue did not answer with a JSON object")
        return found


def add_arguments(parser: FalParser) -> None:
    """Declare `fal api`."""
    parser.description = (
        "Call an app and print its answer: by its queue, so that the call outlives a lost connection or runner; an id "
        "that ends in /stream prints events as they come."
    )
    parser.epilog = _EPILOG
    parser.set_defaults(handler=_api)
    add_client_options(parser)
    # FAL_ENV is not its default, because the app may belong to another owner.
    complete_ids(
        parser.add_argument("--env", type=name_type, help="Environment of the app (defaults to main)."), ENVIRONMENTS
    )
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
        calls = _Calls(settings)
        try:
            if path.endswith("/stream") or args.direct:
                with calls.open("POST", f"{hosts.run}/{path}", fields, _headers(args)) as answer:
                    _show(answer, args.model_id)
                return ExitCode.OK
            return _queued(calls, f"{hosts.queue}/{path}", f"{hosts.queue}/{app}", fields, args)
        except CallError as error:
            raise _naming_app(client, args.model_id, error) from None
        finally:
            calls.close()


def _naming_app(client: SyncServerlessClient, model_id: str, error: CallError) -> Exception:
    """Name the app in an error. If an unknown id starts with one of the caller's apps, suggest that."""
    if error.http_status is None:
        return error
    request = f" (request {error.request_id})" if error.request_id else ""
    text = f"{model_id} answered {error.http_status}: {error.details or 'no details'}{request}"
    owner, _, rest = model_id.strip("/").partition("/")
    if isinstance(error, NotFoundError) and rest and (nickname := _owner_of(client, owner)) is not None:
        text += f"\n'{owner}' is an app of yours: did you mean {nickname}/{owner}/{rest}?"
    return CommandError(text)


def _owner_of(client: SyncServerlessClient, app: str) -> str | None:
    """Return the caller's nickname if the app is theirs. None if it is not, or if that is unknown."""
    try:
        return nickname_of(client) if app in {found.alias for found in client.apps.list()} else None
    except FalError:
        return None


def _headers(args: argparse.Namespace) -> dict[str, str]:
    headers: dict[str, str] = {}
    if args.start_timeout is not None:
        headers["X-Fal-Request-Timeout"] = f"{args.start_timeout:g}"
    if args.hint:
        headers["X-Fal-Runner-Hint"] = args.hint
    if args.priority and not args.direct:
        headers["X-Fal-Queue-Priority"] = args.priority
    return headers


def _queued(calls: _Calls, submit: str, app: str, fields: JSON, args: argparse.Namespace) -> int:
    """Queue the request, follow it to its end, print the result. Ctrl-C, SIGTERM and SIGHUP cancel it."""

    def queue() -> str:
        request_id = calls.ask("POST", submit, fields, _headers(args)).get("request_id")
        if not isinstance(request_id, str) or "/" in request_id:
            raise CommandError(f"{args.model_id}: the queue did not say which request this is")
        return request_id

    with interrupts.deferred():
        started = Started(queue)
        try:
            with interrupts.interruptible():
                request_id = started.result()
                # Built here instead of taken from the response, so that the key goes to no other host.
                url = f"{app}/requests/{request_id}"
                print_note(f"Request {request_id}")
                _follow(calls, f"{url}/status?logs=1")
                with calls.open("GET", url) as answer:
                    _show(answer, args.model_id)
        except (KeyboardInterrupt, SystemExit):
            if (queued := started.settled()) is not None:
                _cancel(calls, f"{app}/requests/{queued}")
            raise
    return ExitCode.OK


def _cancel(calls: _Calls, url: str) -> None:
    request_id = url.rpartition("/")[2]
    try:
        calls.ask("PUT", f"{url}/cancel")
    except CallError as error:
        why = error if error.http_status is None else "it may have ended"
        print_note(f"Request {request_id} could not be cancelled: {why}")
    else:
        print_note(f"Asked to cancel request {request_id}")


def _follow(calls: _Calls, url: str) -> None:
    """Show position, reason for waiting, and logs until the request is completed."""
    shown, progress, reason, pause = 0, "", "", _FIRST_PAUSE_SECONDS
    while True:
        status = calls.ask("GET", url)
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
        time.sleep(_FIRST_PAUSE_SECONDS if news else pause)  # polling survives restarts, which end a stream
        pause = _FIRST_PAUSE_SECONDS if news else min(_LONGEST_PAUSE_SECONDS, pause * 1.5)


def _waits(reason: str, next_try_at: JSON) -> str:
    """Return why a request waits. It is a sentence with the time until the next try."""
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


def _show(answer: HttpStream, model_id: str) -> None:
    """Print a response: JSON as JSON, events as lines, anything else unchanged."""
    content_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "text/event-stream":
        for event in answer.events():
            if event.name == "error":
                raise CommandError(f"{model_id} broke off: {event.data}")
            _show_event(event.data)
        return
    content = b"".join(answer.chunks())
    try:
        value: JSON = json.loads(content)
    except ValueError:
        _show_bytes(content, content_type)
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
