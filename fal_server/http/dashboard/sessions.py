"""Sessions of the dashboard: logged-in browsers. They check that a request comes from a page."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from starlette.requests import Request

from fal_server.access.acting import Teams
from fal_server.access.audit import Recorder
from fal_server.access.authentication import Authenticator
from fal_server.access.tokens import Tokens
from fal_server.core.faults import PermissionDenied, Unauthenticated
from fal_server.core.identity import Principal
from fal_server.http.dashboard.forms import form_of
from fal_server.http.routes.guard import Guard, names_key
from fal_server.ports import Clock

COOKIE = "fal_session"
LIFE = timedelta(hours=12)
PAGE_HEADER, PAGE_FIELD = "x-fal-page", "page"
"""The header and the form field with the session's page token, which proves that a page made the request."""
_MOST_SESSIONS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A logged-in browser.

    Attributes:
        page_token: in every page of the session, where no page of an app can read it.
        ended: set at its end, by logout or by time, which ends shells and followed logs, too.
    """

    key_id: str
    page_token: str
    expires_at: datetime
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Sessions:
    """The sessions, by the hash of their cookie.

    Owned: by the process that serves the dashboard; a restart ends them.
    """

    def __init__(self, authenticator: Authenticator, clock: Clock) -> None:
        self._authenticator = authenticator
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        authenticator.open_calls.on_end(self._end_of_key)

    async def begin(self, key: str) -> tuple[str, Principal]:
        """Begin a session for the holder of a key. Return its cookie and the caller.

        Args:
            key: as `ID:SECRET`.

        Raises:
            Unauthenticated: the key is unknown, revoked or expired, or does not belong to a user.
        """
        key_id, _, secret = key.strip().partition(":")
        await self._authenticator.authenticate(key_id, secret)
        caller = await self._authenticator.holder(key_id)  # a runner's key is in no store, and begins no session
        while len(self._sessions) >= _MOST_SESSIONS:
            self._end(next(iter(self._sessions)))
        cookie = secrets.token_urlsafe(32)
        self._sessions[_hashed(cookie)] = Session(
            key_id=key_id, page_token=secrets.token_urlsafe(24), expires_at=self._clock.now() + LIFE
        )
        asyncio.get_running_loop().call_later(LIFE.total_seconds(), self._end, _hashed(cookie))
        return cookie, caller

    def find(self, request: Request) -> Session | None:
        """Return the session of a request's cookie, or None."""
        found = self._sessions.get(_hashed(request.cookies.get(COOKIE, "")))
        return found if found is not None and found.expires_at > self._clock.now() else None

    async def caller(self, session: Session) -> Principal:
        """Return the caller of a session, with its key's current permissions.

        Raises:
            Unauthenticated: the key has ended.
        """
        return await self._authenticator.holder(session.key_id)

    def end(self, request: Request) -> None:
        """End the session of a request, if it has one."""
        self._end(_hashed(request.cookies.get(COOKIE, "")))

    def _end(self, cookie: str) -> None:
        ended = self._sessions.pop(cookie, None)
        if ended is not None:
            ended.ended.set()

    def _end_of_key(self, key_id: str) -> None:
        for cookie in [cookie for cookie, session in self._sessions.items() if session.key_id == key_id]:
            del self._sessions[cookie]


class PageGuard(Guard):
    """The guard of the dashboard's routes. A session's cookie stands for its key.

    A browser adds the cookie by itself, so requests from other sites are refused by their origin. Pages of apps share
    the dashboard's origin: only opening a page needs no page token, and those pages cannot read the opened one.
    """

    def __init__(
        self, authenticator: Authenticator, tokens: Tokens, teams: Teams, recorder: Recorder, sessions: Sessions
    ) -> None:
        super().__init__(authenticator, tokens, teams, recorder)
        self.sessions = sessions

    async def identify(self, request: Request) -> Principal:
        """Return the caller of the session, or of the request's own key.

        Raises:
            Unauthenticated: there is neither.
            PermissionDenied: no page of the session made the request.
        """
        if names_key(request):
            caller = await super().identify(request)
            request.state.caller = caller
            return caller
        session = self.sessions.find(request)
        if session is None:
            raise Unauthenticated("log in first: this browser has no session, or it has ended")
        require_same_origin(request)
        opens_page = request.method in {"GET", "HEAD"} and _navigates(request)
        if not opens_page and not hmac.compare_digest(await _page_token(request), session.page_token):
            raise PermissionDenied("the request is no page's of this session: load the page again, then repeat it")
        caller = await self.sessions.caller(session)
        request.state.caller = caller
        request.state.page_token = session.page_token
        request.state.session_ended = session.ended
        return caller


def require_same_origin(request: Request) -> None:
    """Refuse a request from another site's page.

    Raises:
        PermissionDenied: the browser says so; programs, and browsers over plain HTTP, may say nothing.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    opened = request.method == "GET" and _navigates(request)
    elsewhere = site not in {None, "same-origin", "none"} and not opened
    if elsewhere or (origin is not None and _host_of(origin) != request.headers.get("host")):
        raise PermissionDenied("the request comes from a page of another site: open the dashboard itself")


def _host_of(origin: str) -> str | None:
    """Return the host and port of an Origin header. None if it is malformed."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _navigates(request: Request) -> bool:
    """Return whether a browser opens a page in its own window. Scripts cannot set these headers."""
    mode, kind = request.headers.get("sec-fetch-mode", "navigate"), request.headers.get("sec-fetch-dest", "document")
    return mode == "navigate" and kind == "document"


async def _page_token(request: Request) -> str:
    given = request.headers.get(PAGE_HEADER) or request.query_params.get(PAGE_FIELD, "")
    if not given and request.method == "POST":
        given = (await form_of(request)).get(PAGE_FIELD, "")
    return given if given.isascii() else ""


def _hashed(cookie: str) -> str:
    return hashlib.sha256(cookie.encode("utf-8", "surrogatepass")).hexdigest()
