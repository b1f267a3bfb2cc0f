"""Query values of the platform API, and the cursors of its pages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from starlette.requests import Request

from fal_server.core.accounts import KnownAccounts
from fal_server.core.cursors import read_cursor, write_cursor
from fal_server.core.faults import InvalidArgument, NotFound
from fal_server.core.identity import AppId, Principal
from fal_server.http.routes.parameters import given_time

_DAY = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)
_MOST_LISTED = 50


def named_app(request: Request, caller: Principal, accounts: KnownAccounts) -> AppId:
    """Return the app in a path.

    Raises:
        NotFound: its owner is not the caller's account.
    """
    accounts.own(caller.scope.account, request.path_params["owner"])
    return AppId.parse(caller.scope.account, request.path_params["app"])


def endpoint_id(accounts: KnownAccounts, app_id: AppId) -> str:
    """Return an app's published identifier, `owner/name`."""
    return f"{accounts.of(app_id.account).nickname}/{app_id}"


def span(
    request: Request,
    now: datetime,
    *,
    most: timedelta | None = None,
    usual: timedelta = _DAY,
    zone: tzinfo = UTC,
) -> tuple[datetime, datetime]:
    """Return the times from `start` to before `end`. By default they are the last 24 hours.

    Args:
        most: the longest span.
        usual: the span without a `start`.
        zone: of times without one.

    Raises:
        InvalidArgument: a time is malformed, they are in the wrong order, or the span is too long.
    """
    end = given_time(request, "end", zone) or now
    start = given_time(request, "start", zone) or end - usual
    if end <= start:
        raise InvalidArgument("end", "end does not lie behind start: swap them, or leave one out")
    if most is not None and end - start > most:
        raise InvalidArgument("start", f"start lies more than {most.days} days before end: ask for a shorter time")
    return start, end


def zone_of(request: Request) -> ZoneInfo:
    """Return the request's time zone, or UTC.

    Raises:
        InvalidArgument: it is unknown.
    """
    name = request.query_params.get("timezone") or "UTC"
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidArgument(
            "timezone", f"timezone {name[:80]!r} is unknown: use one such as Europe/Berlin"
        ) from error


def listed(request: Request, name: str, most: int = _MOST_LISTED) -> list[str]:
    """Return the values of a parameter that is repeated or contains commas.

    Raises:
        InvalidArgument: there are too many.
    """
    found = [one for text in request.query_params.getlist(name) for one in text.split(",") if one]
    if len(found) > most:
        raise InvalidArgument(name, f"{name} has {len(found)} values: give at most {most}")
    return found


def expanded(request: Request, possible: Sequence[str]) -> set[str]:
    """Return the requested additional fields.

    Raises:
        InvalidArgument: one is unknown.
    """
    asked = set(listed(request, "expand"))
    unknown = sorted(asked - set(possible))
    if unknown:
        raise InvalidArgument("expand", f"expand {unknown[0][:80]!r} is unknown: use {', '.join(possible)}")
    return asked


def position(request: Request) -> list[object] | None:
    """Return the position after which a page begins; None means the start.

    Raises:
        InvalidArgument: the cursor is malformed.
    """
    text = request.query_params.get("cursor")
    if not text:
        return None
    try:
        return read_cursor(text)
    except ValueError as error:
        raise bad_cursor() from error


def bad_cursor() -> InvalidArgument:
    return InvalidArgument("cursor", "the cursor was not given out by this controller: begin again without one")


def place_of(position: list[object] | None) -> tuple[datetime, str] | None:
    """Return the time and the id in a position from `paged`.

    Raises:
        InvalidArgument: it is another kind of position.
    """
    match position:
        case None:
            return None
        case [int(micros), str(of)]:
            return time_of(micros), of
        case _:
            raise bad_cursor()


def micros_of(time: datetime) -> int:
    """Return a time as a number for a cursor."""
    return (time - _EPOCH) // _TICK


def time_of(micros: int) -> datetime:
    """Return the time of such a number.

    Raises:
        InvalidArgument: it is out of range.
    """
    try:
        return _EPOCH + timedelta(microseconds=micros)
    except OverflowError as error:
        raise bad_cursor() from error


def paging(behind: Sequence[object] | None) -> dict[str, object]:
    """Return the fields that locate the next page; None means the end."""
    return {"next_cursor": None if behind is None else write_cursor(behind), "has_more": behind is not None}


def iso(time: datetime) -> str:
    """Return a time in the API's form."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def own_app(name: str, text: str, caller: Principal, accounts: KnownAccounts) -> tuple[AppId, str]:
    """Return the app in a text of the form `owner/name`. Also return the rest after a further slash.

    Args:
        name: the parameter, for the error.

    Raises:
        InvalidArgument: it is malformed.
        NotFound: it belongs to another account.
    """
    mine = accounts.of(caller.scope.account)
    owner, _, rest = text.partition("/")
    app, _, path = rest.partition("/")
    if not app:
        raise InvalidArgument(name, f"{name} is {text[:80]!r}: write it as `owner/name`")
    if owner not in (mine.nickname, mine.user_id):
        raise NotFound(f"app {text[:80]!r}", f"your key is of {mine.nickname}")
    return AppId.parse(mine.id, app), path


def own_apps(request: Request, name: str, caller: Principal, accounts: KnownAccounts) -> list[AppId]:
    """Return the apps in a parameter of the form `owner/name`.

    Raises:
        InvalidArgument: one is malformed.
        NotFound: one belongs to another account.
    """
    found = list[AppId]()
    for text in listed(request, name):
        app_id, path = own_app(name, text, caller, accounts)
        if path:
            raise InvalidArgument(name, f"{name} is {text[:80]!r}: write it as `owner/name`")
        found.append(app_id)
    return found
