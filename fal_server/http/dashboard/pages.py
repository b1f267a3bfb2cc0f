"""Renders the dashboard's pages, with each one's data and protective headers."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from importlib.resources import files
from typing import cast

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from fal_server.access.permissions import allows
from fal_server.core.accounts import KnownAccounts
from fal_server.core.faults import Fault, InvalidArgument
from fal_server.core.identity import AppId, Principal
from fal_server.http.dashboard.wording import ago, amount, clock_time, day_time, plain, size, span, tone
from fal_server.http.routes.hosts import folder_of
from fal_server.http.routes.permissions import ROUTE_PERMISSIONS
from fal_server.http.server.faults import http_error
from fal_server.ports import Clock

_NAVIGATION = (
    ("Overview", "/ui/"),
    ("Apps", "/ui/apps"),
    ("Requests", "/ui/requests"),
    ("Runners", "/ui/runners"),
    ("Nodes", "/ui/nodes"),
)
# The pages of the account, which share one entry there.
_OF_THE_ACCOUNT = (
    ("Keys", "/ui/keys"),
    ("Secrets", "/ui/secrets"),
    ("Environments", "/ui/environments"),
    ("Drains", "/ui/drains"),
    ("Notices", "/ui/notices"),
    ("Accounts", "/ui/accounts"),
    ("Audit", "/ui/audit"),
)
_KINDS = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}


class Static:
    """The files that pages load. Their addresses contain their hashes, so browsers cache them forever."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, str]] = {}
        self.versions: dict[str, str] = {}
        for file in (files("fal_server.http.dashboard") / "static").iterdir():
            kind = _KINDS.get(file.name.rpartition(".")[2])
            if kind is not None:
                content = file.read_bytes()
                self._files[file.name] = gzip.compress(content, mtime=0), f"{kind}; charset=utf-8"
                self.versions[file.name] = hashlib.sha256(content).hexdigest()[:12]

    def address(self, name: str) -> str:
        """Return the address of a file."""
        return f"/ui/static/{name}?v={self.versions[name]}"

    def answer(self, request: Request) -> Response | None:
        """Return a file, or None if it does not exist."""
        content, kind = self._files.get(request.path_params["name"], (b"", ""))
        if not kind:
            return None
        headers = {
            "content-type": kind,
            "cache-control": "public, max-age=31536000, immutable",
            "vary": "accept-encoding",
            "x-content-type-options": "nosniff",
        }
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(content, headers={**headers, "content-encoding": "gzip"})
        return Response(gzip.decompress(content), headers=headers)


class Pages:
    """Renders templates for a caller."""

    def __init__(self, accounts: KnownAccounts, clock: Clock, version: str) -> None:
        self._accounts = accounts
        self._clock = clock
        self.static = Static()
        self._templates = Environment(
            loader=PackageLoader("fal_server.http.dashboard"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        # Jinja's type hints only allow its initial values.
        cast("dict[str, object]", self._templates.filters).update(
            ago=self._ago, span=span, size=size, tone=tone, amount=amount, plain=plain, time=clock_time, day=day_time
        )
        self._version = version

    def now(self) -> datetime:
        """Return the controller's time, as in stored rows."""
        return self._clock.now()

    def _ago(self, at: datetime | None) -> str:
        return ago(self.now(), at)

    def nickname(self, caller: Principal) -> str:
        """Return the nickname of a caller's account. It is the first part of its apps' paths."""
        return self._accounts.of(caller.scope.account).nickname

    def text(self, template: str, **values: object) -> str:
        """Render a part of a page."""
        return self._templates.get_template(template).render(values)

    def show(
        self, request: Request, template: str, *, status: int = 200, external: bool = False, **values: object
    ) -> Response:
        """Render a page, with what is wrong in its form. It is for the caller, if the guard admitted one.

        Args:
            external: whether it may contain images, audio and video from anywhere.
        """
        caller: Principal | None = getattr(request.state, "caller", None)
        fault: Fault | None = getattr(request.state, "fault", None)
        form: Mapping[str, str] = getattr(request.state, "form", None) or {}
        wrong = {} if fault is None else {_place_of(fault, form): fault.message}
        status = status if fault is None else http_error(fault).status
        shown = {
            "holder": caller,
            "static": self.static.address,
            "version": self._version,
            "owner": None if caller is None else self.nickname(caller),
            "page_token": getattr(request.state, "page_token", ""),
            "path": request.url.path,
            "may": partial(may, caller),
            "navigation": _opened(caller, _NAVIGATION),
            "account_pages": _opened(caller, _OF_THE_ACCOUNT),
            "wrong": wrong,
            "entered": form if wrong else {},
            "notice": "" if caller is None else request.query_params.get("notice", "")[:200],
            **values,
        }
        return HTMLResponse(
            self.text(template, **shown), status, headers_of(request, "http: https:" if external else "")
        )


def _place_of(fault: Fault, form: Mapping[str, str]) -> str:
    """Return the field that a fault is about. It is "" if the form has no such field."""
    field = fault.field.partition("[")[0] if isinstance(fault, InvalidArgument) else ""
    return field if field in form else ""


def may(caller: Principal | None, method: str, path: str) -> bool:
    """Return whether a caller may use a route of the table. So pages offer only permitted actions."""
    needed = ROUTE_PERMISSIONS[method, path]
    return caller is not None and isinstance(needed, str) and allows(caller, needed)


def app_of(request: Request, caller: Principal) -> AppId:
    """Return the app in a path."""
    return AppId.parse(caller.scope.account, request.path_params["app"])


def _opened(caller: Principal | None, entries: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    if caller is None or caller.scope.restrictions.limit:
        return []
    return [(label, path) for label, path in entries if may(caller, "GET", path)]


def headers_of(request: Request, media: str = "") -> Mapping[str, str]:
    """Return the headers of every page.

    An app's page has the same origin, so the dashboard only allows scripts from one folder of it. An app must not be
    able to keep a window on a page, nor to show one inside its own.

    Args:
        media: additional sources of images, audio and video.
    """
    static = folder_of(request, "/ui/static/")
    sockets = folder_of(request, "/", "wss://" if request.url.scheme == "https" else "ws://")
    policy = (
        f"default-src 'none'; script-src {static}; style-src {static}; connect-src 'self' {sockets}; "
        f"img-src 'self' data: {media}; media-src 'self' data: {media}; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return {
        "content-security-policy": policy,
        "x-frame-options": "DENY",
        "x-content-type-options": "nosniff",
        "referrer-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "cache-control": "no-store",
    }
