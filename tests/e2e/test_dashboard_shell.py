"""Shells and followed logs on the dashboard's pages, and what ends them."""

from __future__ import annotations

import json
import re
from http.client import HTTPConnection

import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from fal.websocket import WebSocket
from tests.support.controller import Controller
from tests.support.dashboard import Browser, key_of, runner_of
from tests.support.waiting import until


def read_until(shell: WebSocket, pattern: bytes) -> re.Match[bytes]:
    """Read what a shell writes until that matches. What was typed is in it, once or twice."""
    seen = b""
    while (found := re.search(pattern, seen, re.DOTALL)) is None:
        part = shell.recv()
        assert isinstance(part, bytes), part
        seen += part
    return found


def last_of(shell: WebSocket) -> str | bytes:
    """Return the last message before a shell is closed in good order."""
    said: str | bytes = b""
    while True:
        try:
            said = shell.recv()
        except ConnectionClosedOK:
            return said


def test_a_page_has_a_shell_in_a_runner(shop: Controller, owner: Browser) -> None:
    runner = runner_of(shop)
    page = owner.get(f"/ui/runners/{runner}/shell")
    assert f'data-shell="/ui/runners/{runner}/shell/socket"' in page.text
    assert "xterm" in page.text
    assert "xterm" not in owner.get(f"/ui/runners/{runner}").text
    assert owner.get(f"/ui/runners/{runner}/shell/socket").status == 400
    with owner.shell(runner) as shell:
        shell.send(b"stty size; echo $((6*7))\r")
        read_until(shell, b"30 100.*42")
        shell.send(json.dumps({"columns": 90, "rows": 20}))
        for nonsense in ("{", "[]", '{"columns": "x", "rows": 1}', '{"columns": -1, "rows": 99999}'):
            shell.send(nonsense)
        shell.send(json.dumps({"columns": 90, "rows": 20}))
        shell.send(b"stty size; exit 3\r")
        read_until(shell, b"20 90")
        while isinstance(said := shell.recv(), bytes):
            pass
        assert json.loads(said) == {"exit": 3}
    rows = json.loads(shop.fal("audit", "list", "--json").stdout)["entries"]
    row = next(row for row in rows if row["action"] == "GET /ui/runners/{runner_id}/shell/socket")
    assert row["target"] == f"runner_id={runner}"


def test_a_shell_ends_with_its_page(shop: Controller, owner: Browser) -> None:
    runner = runner_of(shop)
    with owner.shell(runner) as shell:
        shell.send(b"echo pid=$$.\r")
        pid = read_until(shell, rb"pid=(\d+)\.")[1].decode()
    there = ("runners", "exec", runner, "--", "test", "-d", f"/proc/{pid}")
    until(lambda: shop.fal(*there, check=False).returncode == 1, "the shell has ended")


def test_a_shell_ends_with_its_key(shop: Controller) -> None:
    key_id, key = key_of(shop, "--scope", "ADMIN")
    browser = Browser(shop.host)
    browser.log_in(key)
    with browser.shell(runner_of(shop)) as shell:
        shell.send(b"echo $((6*7))\r")
        read_until(shell, b"42")
        shop.fal("keys", "revoke", key_id)
        with pytest.raises(ConnectionClosed):
            read_until(shell, b"what no shell writes")


def test_a_shell_is_for_keys_and_pages_that_may(shop: Controller, owner: Browser) -> None:
    def refused(browser: Browser, runner: str, **more: str) -> int:
        with pytest.raises(InvalidStatus) as caught, browser.shell(runner, **more):
            pass
        return caught.value.response.status_code

    runner = runner_of(shop)
    reader = Browser(shop.host)
    reader.log_in(key_of(shop, "--preset", "READONLY")[1])
    assert reader.get(f"/ui/runners/{runner}/shell").status == 403
    assert "/shell" not in reader.get(f"/ui/runners/{runner}").text
    assert "/shell" in owner.get(f"/ui/runners/{runner}").text
    assert refused(reader, runner) == 403
    assert refused(owner, runner, page="guessed") == 403
    assert refused(Browser(shop.host), runner) == 401
    assert refused(owner, "nothing") == 404
    place = f"ws://{shop.host}/ui/runners/{runner}/shell/socket?page={owner.token}"
    with pytest.raises(InvalidStatus) as caught:
        connect(place, origin=Origin("https://evil.example"), additional_headers={"Cookie": owner.cookie})
    assert caught.value.response.status_code == 403


def test_a_logout_ends_the_shells_and_followed_logs_of_other_pages(shop: Controller) -> None:
    browser, other = Browser(shop.host), Browser(shop.host)
    browser.log_in(shop.key)
    other.log_in(shop.key)
    runner = runner_of(shop)
    followed = HTTPConnection(shop.host)
    fields = {"cookie": browser.cookie, "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}
    followed.request("GET", f"/ui/apps/shop/follow?page={browser.token}", headers=fields)
    lines = followed.getresponse()
    with browser.shell(runner) as ended, other.shell(runner) as kept:
        ended.send(b"echo $((6*7))\r")
        read_until(ended, b"42")
        assert browser.post("/ui/logout").place == "/ui/login"
        assert json.loads(last_of(ended)) == {"error": "this browser has logged out, or its session has ended"}
        assert lines.read().endswith(b"event: end\ndata: over\n\n")
        kept.send(b"echo $((6*9))\r")
        read_until(kept, b"54")
    followed.close()
