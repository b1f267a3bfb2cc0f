"""A browser without JavaScript for the dashboard: pages, forms and a cookie. An app to look at is here, too."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import urlencode

from websockets.asyncio.client import connect
from websockets.typing import Origin

from fal.websocket import WebSocket
from tests.support.controller import Controller

SHOP = """
import fal
from pydantic import BaseModel, Field


class Order(BaseModel):
    thing: str = Field(default="bread", description="What to sell")
    count: int = Field(default=1, ge=1, le=9)
    kind: str = Field(default="new", json_schema_extra={"enum": ["new", "old"]})
    wrapped: bool = False
    note: str | None = None


class Shop(fal.App, name="shop", keep_alive=300):
    @fal.endpoint("/")
    def sell(self, order: Order) -> dict:
        print("sold <b>one</b>")
        if order.count == 9:
            raise RuntimeError("only eight are left")
        picture = {"url": "https://pictures.example/bread.png", "content_type": "image/png"}
        return {**order.model_dump(), "picture": picture}

    @fal.realtime("/live")
    def live(self, order: Order) -> dict:
        return order.model_dump()
"""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A page."""

    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def place(self) -> str:
        """The target of a redirect."""
        return self.headers.get("location", "")

    @property
    def page_token(self) -> str:
        """The token in its forms."""
        return re.findall(r'data-page="([^"]*)"', self.text)[0]

    @property
    def actions(self) -> set[str]:
        """The targets of its forms, except logging out."""
        return set(re.findall(r'method="post" action="([^"]*)"', self.text)) - {"/ui/logout"}


@dataclass
class Browser:
    """A browser. Like any other, it sends headers about a request's origin.

    Attributes:
        context: how it knows the server by TLS; None for plaintext.
    """

    host: str
    context: ssl.SSLContext | None = None
    cookie: str = ""
    token: str = field(default="", repr=False)

    def log_in(self, key: str) -> Shown:
        """Log in with a key; keep the cookie and the page token."""
        answer = self.post("/ui/login", key=key)
        self.cookie = answer.headers.get("set-cookie", "").partition(";")[0]
        if answer.status == 303:
            self.token = self.get(answer.place).page_token
        return answer

    def get(self, path: str, **headers: str) -> Shown:
        """Open a page; headers have underscores for hyphens."""
        fields = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "sec-fetch-site": "same-origin"}
        return self._send("GET", path, None, {**fields, **_named(headers)})

    def head(self, path: str, **headers: str) -> Shown:
        """Return the headers of a resource."""
        return self._send("HEAD", path, None, _named(headers))

    def post(self, place: str, headers: Mapping[str, str] | None = None, /, **form: str) -> Shown:
        """Send a form of the last opened page."""
        fields = {
            "content-type": "application/x-www-form-urlencoded", "origin": self._address("http"),
            "sec-fetch-site": "same-origin", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document",
        }  # fmt: skip
        form = {"page": self.token, **form} if self.token else form
        return self._send("POST", place, urlencode(form), {**fields, **(headers or {})})

    def _send(self, method: str, path: str, body: str | None, headers: Mapping[str, str]) -> Shown:
        connection = HTTPSConnection(self.host, context=self.context) if self.context else HTTPConnection(self.host)
        cookie = {"cookie": self.cookie} if self.cookie else {}
        connection.request(method, path, body, {"accept": "text/html", **cookie, **headers})
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        shown = Shown(status=answer.status, text=answer.read().decode(), headers=found)
        connection.close()
        return shown

    @contextmanager
    def shell(self, runner: str, **more: str) -> Iterator[WebSocket]:
        """Open a shell as the page of a runner does."""
        query = urlencode({"page": self.token, "columns": "100", "rows": "30", **more})
        place = f"{self._address('ws')}/ui/runners/{runner}/shell/socket?{query}"
        fields = {"Cookie": self.cookie, "Sec-Fetch-Mode": "websocket", "Sec-Fetch-Dest": "empty"}
        origin = Origin(self._address("http"))
        with WebSocket(connect(place, origin=origin, ssl=self.context, additional_headers=fields)) as shell:
            yield shell

    def _address(self, scheme: str) -> str:
        return f"{scheme}{'s' if self.context else ''}://{self.host}"


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def key_of(controller: Controller, *arguments: str) -> tuple[str, str]:
    """Return the id and the text of another key."""
    made = json.loads(controller.fal("keys", "create", *arguments, "--json").stdout)
    return made["key_id"], f"{made['key_id']}:{made['key_secret']}"


def runner_of(controller: Controller) -> str:
    """Return the id of the shop's runner."""
    found = json.loads(controller.fal("runners", "list", "--json").stdout)["runners"]
    return next(runner["runner_id"] for runner in found if runner["alias"] == "shop")
