"""The dashboard over real HTTP, as in a browser without JavaScript."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from tests.support.controller import Controller
from tests.support.dashboard import Browser, Shown
from tests.support.waiting import until

APP = """
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


@pytest.fixture(scope="module")
def deployed(controller: Controller, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the output of the app's deploy."""
    path = tmp_path_factory.mktemp("shop") / "shop.py"
    path.write_text(APP)
    return controller.fal("deploy", str(path)).stdout


@pytest.fixture(scope="module")
def shop(controller: Controller, deployed: str) -> Iterator[Controller]:
    """Return a controller with an app that has a runner."""
    assert "Deployed shop" in deployed
    assert controller.call("/local/shop/", {}, key=controller.key).status == 200
    yield controller
    controller.fal("apps", "delete", "shop")


@pytest.fixture
def owner(shop: Controller) -> Browser:
    """Return a browser of the controller's owner."""
    browser = Browser(shop.host)
    assert browser.log_in(shop.key).status == 303
    return browser


def key_of(controller: Controller, *arguments: str) -> tuple[str, str]:
    """Return the id and the text of another key."""
    made = json.loads(controller.fal("keys", "create", *arguments, "--json").stdout)
    return made["key_id"], f"{made['key_id']}:{made['key_secret']}"


def runner_of(controller: Controller) -> str:
    found = json.loads(controller.fal("runners", "list", "--json").stdout)["runners"]
    return next(runner["runner_id"] for runner in found if runner["alias"] == "shop")


def settings_of(controller: Controller) -> tuple[int, int]:
    found = json.loads(controller.fal("apps", "list", "--json").stdout)["apps"]
    app = next(app for app in found if app["alias"] == "shop")
    return app["keep_alive"], app["max_concurrency"]


def test_a_key_opens_a_session_that_scripts_and_other_sites_cannot_have(shop: Controller) -> None:
    browser = Browser(shop.host)
    assert browser.get("/ui/apps?x=1").place == "/ui/login?next=/ui/apps%3Fx%3D1"
    answer = browser.log_in(shop.key)
    assert (answer.status, answer.place) == (303, "/ui/")
    name, *attributes = answer.headers["set-cookie"].split("; ")
    assert {each.partition("=")[0].lower() for each in attributes} == {"httponly", "max-age", "path", "samesite"}
    assert "Path=/ui" in attributes
    assert "SameSite=strict" in attributes
    assert not any(part in name for part in shop.key.split(":"))
    assert "Overview" in browser.get("/ui/").text
    assert browser.post("/ui/logout").place == "/ui/login"
    assert browser.get("/ui/").status == 303


@pytest.mark.parametrize("key", ["nobody:secret", "nonsense", "é:é", ":"])
def test_a_wrong_key_opens_none(shop: Controller, key: str) -> None:
    answer = Browser(shop.host).log_in(key)
    assert answer.status == 401
    assert "the key is unknown or its secret is wrong" in answer.text
    assert "set-cookie" not in answer.headers
    assert Browser(shop.host).log_in(" ").status == 400


@pytest.mark.parametrize(
    "place", ["https://evil.example/ui/", "//evil.example/ui/", "//[/ui/", "/\\evil", "/local/shop", "javascript:1"]
)
def test_the_login_leads_nowhere_else(shop: Controller, place: str) -> None:
    assert Browser(shop.host).post("/ui/login", key=shop.key, next=place).place == "/ui/"
    assert Browser(shop.host).post("/ui/login", key=shop.key, next="/ui/apps?x=1").place == "/ui/apps?x=1"


def test_every_page_protects_itself(owner: Browser) -> None:
    for page in (owner.get("/ui/"), owner.get("/ui/apps/none"), Browser(owner.host).get("/ui/login")):
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert f"script-src {owner.host}/ui/static/;" in policy  # not for the whole origin, which apps share
        assert "frame-ancestors 'none'" in policy
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["cross-origin-opener-policy"] == "same-origin"
        assert page.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in page.headers
        assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", page.text)


def test_what_other_pages_send_is_refused(owner: Browser) -> None:
    form = {"max_concurrency": "3"}
    place = "/ui/apps/shop/scale"
    for headers in (
        {"origin": "https://evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "null"},
        {"origin": "http://["},
    ):
        assert owner.post(place, headers, **form).status == 403
        assert owner.post("/ui/login", headers, key="a:b").status == 403
    assert owner.post(place, page="guessed", **form).status == 403
    assert owner.post(place, page="", **form).status == 403
    assert Browser(owner.host).post(place, **form).place == "/ui/login?next=/ui/"
    assert owner.post(place, **form).status == 303
    assert 'name="max_concurrency" type="number" value="3"' in owner.get("/ui/apps/shop").text


def test_script_of_an_app_which_has_the_same_origin_reads_no_page(owner: Browser) -> None:
    for mode, kind in (("cors", "empty"), ("no-cors", "empty"), ("navigate", "iframe"), ("same-origin", "empty")):
        assert owner.get("/ui/apps", sec_fetch_mode=mode, sec_fetch_dest=kind).status == 403
    live = owner.get("/ui/apps", sec_fetch_mode="cors", sec_fetch_dest="empty", x_fal_page=owner.token)
    assert live.status == 200
    # For a link from another site a browser sends no cookie of this kind.
    assert Browser(owner.host).get("/ui/apps", sec_fetch_site="cross-site").status == 303


def test_the_pages_of_an_app_and_its_runner(shop: Controller, owner: Browser) -> None:
    runner = runner_of(shop)
    texts = {
        "/ui/": ["What runs", "shop", "Nothing" if "Nothing" in owner.get("/ui/").text else "What failed"],
        "/ui/apps": ["shop", "serving", "private"],
        "/ui/apps/shop": [
            f"http://{shop.host}/local/shop",
            "Why so many",
            "keep_alive",
            "requests in line",
            runner[:8],
        ],
        "/ui/apps/shop/logs": ["sold &lt;b&gt;one&lt;/b&gt;"],
        "/ui/runners": [runner[:8], "idle"],
        f"/ui/runners/{runner}": ["setup", "ordered on", "sold &lt;b&gt;one&lt;/b&gt;"],
        f"/ui/runners/{runner}?search=SOLD": ["sold &lt;b&gt;one&lt;/b&gt;"],
        f"/ui/runners/{runner}?search=never": ["No line has these words."],
    }
    for path, wanted in texts.items():
        page = owner.get(path)
        assert page.status == 200, path
        for text in wanted:
            assert text in page.text, (path, text)
    assert "sold" not in owner.get(f"/ui/runners/{runner}?search=never").text


def test_a_deploy_prints_the_page_that_tries_the_app(shop: Controller, owner: Browser, deployed: str) -> None:
    (printed,) = re.findall(r"  playground  (http://.*)", deployed)
    place = urlsplit(printed).path
    assert place == "/ui/apps/shop/playground/"
    assert 'name="in.count" type="number"' in owner.get(place).text
    assert Browser(shop.host).get(place).place.startswith("/ui/login")


def test_an_app_is_called_from_its_form(shop: Controller, owner: Browser) -> None:
    form = owner.get("/ui/apps/shop/playground")
    for text in (
        "What to sell",
        'name="in.count" type="number"',
        "<option selected>new</option>",
        "fal_client.subscribe",
    ):
        assert text in form.text, text
    done = owner.post("/ui/apps/shop/playground", path="/", send="form", **{"in.thing": "<i>rye</i>", "in.count": "2"})
    assert done.status == 200
    assert "&#34;thing&#34;: &#34;&lt;i&gt;rye&lt;/i&gt;&#34;" in done.text
    assert "&#34;wrapped&#34;: false" in done.text
    assert '<img class="media" src="https://pictures.example/bread.png"' in done.text
    assert "img-src 'self' data: http: https:" in done.headers["content-security-policy"]
    wrong = owner.post("/ui/apps/shop/playground", path="/", send="form", **{"in.count": "two"})
    assert (wrong.status, "give a whole number" in wrong.text) == (400, True)
    queued = owner.post("/ui/apps/shop/playground", path="/", send="json-queue", json='{"thing": "oats"}')
    assert queued.place.startswith("/ui/apps/shop/requests/")
    assert owner.get(queued.place).status == 200
    assert owner.post("/ui/apps/shop/playground", path="/", send="json", json="{").status == 400
    for path in ("", "nowhere", "/ HTTP/1.1\r\nx: y", "/other"):
        assert owner.post("/ui/apps/shop/playground", path=path, send="json", json="{}").status == 400


def test_a_page_gets_a_token_to_call_its_app_by_script(shop: Controller, owner: Browser) -> None:
    place = "/ui/apps/shop/playground/token"
    given = owner.post(place, {"sec-fetch-mode": "cors", "sec-fetch-dest": "empty"})
    assert given.status == 200

    def opened(app: str, token: str) -> int:
        with socket.create_connection(shop.host.split(":")) as line:
            line.sendall(
                f"GET /local/{app}/live?fal_jwt_token={token} HTTP/1.1\r\nHost: {shop.host}\r\n".encode()
                + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            return int(line.makefile("rb").readline().split()[1])

    assert opened("shop", given.text) == 101
    assert opened("shop", given.text + "x") == 401
    page = Browser(shop.host)
    page.log_in(key_of(shop, "--preset", "READONLY")[1])
    assert page.post(place).status == 403
    assert owner.post(place, page="guessed").status == 403
    assert f"ws://{shop.host}/;" in owner.get("/ui/apps/shop/playground").headers["content-security-policy"]


def test_a_realtime_endpoint_is_not_called_by_post(shop: Controller, owner: Browser) -> None:
    page = owner.get("/ui/apps/shop/playground/live")
    assert "fal.realtime.connect(&#34;local/shop&#34;, {" in page.text
    assert "fal_client.realtime(&#34;local/shop&#34;, path=&#34;/live&#34;)" in page.text
    assert 'name="send"' not in page.text
    assert "<noscript>" in page.text
    refused = owner.post("/ui/apps/shop/playground", path="/live", send="form")
    assert (refused.status, "realtime session" in refused.text) == (400, True)


def test_a_failed_request_and_its_log(shop: Controller, owner: Browser) -> None:
    answer = shop.call("/local/shop/", {"count": 9}, key=shop.key)
    request_id = answer.headers["x-fal-request-id"]
    place = f"/ui/apps/shop/requests/{request_id}"
    assert place in owner.get("/ui/").text
    for page in ("/ui/requests", "/ui/apps/shop/requests", "/ui/requests?status=error&span=6h"):
        assert place in owner.get(page).text, page
    assert place not in owner.get("/ui/requests?status=success").text
    page = owner.get(place)
    for text in ("runner_server_error", "only eight are left", "direct", "POST /"):
        assert text in page.text, text
    assert owner.get("/ui/apps/other/requests/" + request_id).status == 404
    assert owner.get("/ui/requests?status=nonsense").status == 400


def test_keys_are_made_shown_once_and_revoked(shop: Controller, owner: Browser) -> None:
    page = owner.post("/ui/keys", preset="API", alias="for <b>tests</b>", days="3")
    key = re.findall(r"<code data-copy>([^<]*)</code>", page.text)[0]
    assert Browser(shop.host).log_in(key).status == 303
    assert "for &lt;b&gt;tests&lt;/b&gt;" in page.text
    secret = key.partition(":")[2]
    assert secret not in owner.get("/ui/keys").text + owner.get("/ui/audit").text
    key_id = key.partition(":")[0]
    assert owner.post(f"/ui/keys/{key_id}/revoke").status == 303
    assert Browser(shop.host).log_in(key).status == 401


def test_secrets_are_set_and_never_shown(shop: Controller, owner: Browser) -> None:
    assert owner.post("/ui/secrets", name="BAKER", value="hunter2", environment="main").status == 303
    pages = owner.get("/ui/secrets").text + owner.get("/ui/audit").text
    assert "BAKER" in pages
    assert "hunter2" not in pages
    assert owner.post("/ui/secrets/BAKER/unset", environment="main").status == 303
    assert "BAKER" not in owner.get("/ui/secrets").text
    assert owner.post("/ui/secrets", name="no name", value="x", environment="main").status == 400


def test_environments_are_made_and_deleted(shop: Controller, owner: Browser) -> None:
    assert owner.post("/ui/environments", name="next", description="<b>soon</b>").status == 303
    page = owner.get("/ui/environments")
    assert "&lt;b&gt;soon&lt;/b&gt;" in page.text
    assert page.actions == {"/ui/environments", "/ui/environments/next/delete"}, "main always exists"
    assert owner.post("/ui/environments", name="no name").status == 400
    assert owner.post("/ui/environments/next/delete").status == 303
    assert "next" not in json.dumps(json.loads(shop.fal("environments", "list", "--json").stdout))


def test_drains_are_shown_and_paused(shop: Controller, owner: Browser) -> None:
    assert "fal drains create" in owner.get("/ui/drains").text
    shop.fal("drains", "create", "archive", "https://logs.example.com/in?token=hunter2")
    page = owner.get("/ui/drains")
    assert "https://logs.example.com/in" in page.text
    assert "hunter2" not in page.text
    assert page.actions == {"/ui/drains/archive/pause"}
    assert owner.post("/ui/drains/archive/pause").place.startswith("/ui/drains?")
    paused = owner.get("/ui/drains")
    assert "paused" in paused.text
    assert paused.actions == {"/ui/drains/archive/resume"}
    assert owner.post("/ui/drains/archive/resume").status == 303
    assert owner.post("/ui/drains/other/pause").status == 404
    shop.fal("drains", "delete", "archive", "--yes")


def test_notices_are_shown(shop: Controller, owner: Browser) -> None:
    assert "Nobody is told" in owner.get("/ui/notices").text
    shop.fal("notices", "create", "duty", "https://hooks.example.com/hunter2", "--on", "queue-size=50")
    page = owner.get("/ui/notices")
    for text in ("duty", "hooks.example.com", "queue-size (50)", "quiet", "all apps"):
        assert text in page.text, text
    assert "hunter2" not in page.text
    assert page.actions == {"/ui/notices/duty/test"}
    shop.fal("notices", "delete", "duty", "--yes")


def test_accounts_are_those_that_the_key_may_see(shop: Controller, owner: Browser) -> None:
    made = json.loads(shop.fal("teams", "create", "bakers", "--json").stdout)
    page = owner.get("/ui/accounts").text
    for text in ("Quotas of local", "queued requests", "100,000", "bakers"):
        assert text in page, text
    team = Browser(shop.host)
    team.log_in(f"{made['key_id']}:{made['key_secret']}")
    assert "Quotas of bakers" in team.get("/ui/accounts").text
    assert "local" not in team.get("/ui/accounts").text.replace("local-", "")


def test_a_revision_is_compared_before_the_app_moves_back(shop: Controller, owner: Browser, tmp_path: Path) -> None:
    changed = tmp_path / "shop.py"
    changed.write_text(APP.replace("sold <b>one</b>", "sold <i>one</i>"))
    (first,) = re.findall(r"/ui/apps/shop/revisions/([^\"]*)", owner.get("/ui/apps/shop").text)
    assert "nothing to compare" in owner.get(f"/ui/apps/shop/revisions/{first}").text
    shop.fal("deploy", str(changed), "--message", "it <leans>", "--strategy", "recreate")
    (second,) = set(re.findall(r"/ui/apps/shop/revisions/([^\"]*)", owner.get("/ui/apps/shop").text)) - {first}
    now, then = (owner.get(f"/ui/apps/shop/revisions/{each}") for each in (second, first))
    lines = [
        f'<span class="{kind}">{sign}        print(&#34;sold &lt;{tag}&gt;one&lt;/{tag}&gt;&#34;)'
        for kind, sign, tag in (("bad", "-", "b"), ("good", "+", "i"), ("bad", "-", "i"), ("good", "+", "b"))
    ]
    assert all(line in now.text for line in ("What it changed", "it &lt;leans&gt;", *lines[:2]))
    assert all(line in then.text for line in ("What a move here changes", *lines[2:]))
    assert (now.actions, then.actions) == (set(), {"/ui/apps/shop/revision"})
    assert owner.get("/ui/apps/shop/revisions/nothing").status == 404
    assert owner.post("/ui/apps/shop/revision", revision=first).status == 303
    until(lambda: owner.get(f"/ui/apps/shop/revisions/{first}").actions == set(), "the app has moved back")


def test_other_settings_are_tried_without_changing_the_app(shop: Controller, owner: Browser) -> None:
    before = settings_of(shop)
    assert "Settings to try" in owner.get("/ui/apps/shop/simulate").text
    load = {"rate": "4", "duration": "1", "span": "30", "start_seconds": "2"}
    page = owner.post("/ui/apps/shop/simulate", max_concurrency="7", keep_alive="1", **load)
    assert page.status == 200
    assert "120 requests, with these settings" in page.text
    now, tried = re.findall(r"<tr><td>(?:Now|Tried)</td>(.*)</tr>", page.text)
    assert now != tried
    assert 'name="max_concurrency" type="number" value="7"' in page.text
    assert {"/ui/apps/shop/simulate#result", "/ui/apps/shop/scale"} >= page.actions
    assert shop.call("/local/shop/", {}, key=shop.key).status == 200
    of_history = owner.post("/ui/apps/shop/simulate", load="history", max_concurrency="7")
    assert of_history.status == 200
    for wrong in ({"rate": "0"}, {"rate": "nan"}, {"span": "1e6", "rate": "1e6"}, {"max_concurrency": "x"}):
        assert owner.post("/ui/apps/shop/simulate", **(load | wrong)).status == 400, wrong
    assert settings_of(shop) == before


def test_nodes_and_the_controller(owner: Browser) -> None:
    page = owner.get("/ui/nodes").text
    for text in ("processors", "reserved by runners", "Runs since", "left out of the history"):
        assert text in page


def test_lines_are_followed(shop: Controller, owner: Browser) -> None:
    runner = runner_of(shop)
    assert owner.get(f"/ui/runners/{runner}/follow", sec_fetch_mode="cors", sec_fetch_dest="empty").status == 403
    shop.fal("runners", "stop", "--wait", runner)
    followed = owner.get(
        f"/ui/runners/{runner}/follow?page={owner.token}", sec_fetch_mode="cors", sec_fetch_dest="empty"
    )
    assert followed.headers["content-type"].startswith("text/event-stream")
    assert 'data: <div class="line' in followed.text
    assert followed.text.endswith("event: end\ndata: over\n\n")
    assert shop.call("/local/shop/", {}, key=shop.key).status == 200


@contextmanager
def shell_of(browser: Browser, runner: str, **more: str) -> Iterator[ClientConnection]:
    """Open a shell as the page does."""
    query = urlencode({"page": browser.token, "columns": "100", "rows": "30", **more})
    place = f"ws://{browser.host}/ui/runners/{runner}/shell/socket?{query}"
    fields = {"Cookie": browser.cookie, "Sec-Fetch-Mode": "websocket", "Sec-Fetch-Dest": "empty"}
    with connect(place, origin=Origin(f"http://{browser.host}"), additional_headers=fields) as shell:
        yield shell


def read_until(shell: ClientConnection, pattern: bytes) -> re.Match[bytes]:
    """Read what a shell writes until that matches. What was typed is in it, once or twice."""
    seen = b""
    while (found := re.search(pattern, seen, re.DOTALL)) is None:
        part = shell.recv()
        assert isinstance(part, bytes), part
        seen += part
    return found


def test_a_page_has_a_shell_in_a_runner(shop: Controller, owner: Browser) -> None:
    runner = runner_of(shop)
    page = owner.get(f"/ui/runners/{runner}/shell")
    assert f'data-shell="/ui/runners/{runner}/shell/socket"' in page.text
    assert "xterm" in page.text
    assert "xterm" not in owner.get(f"/ui/runners/{runner}").text
    assert owner.get(f"/ui/runners/{runner}/shell/socket").status == 400
    with shell_of(owner, runner) as shell:
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
    with shell_of(owner, runner) as shell:
        shell.send(b"echo pid=$$.\r")
        pid = read_until(shell, rb"pid=(\d+)\.")[1].decode()
    there = ("runners", "exec", runner, "--", "test", "-d", f"/proc/{pid}")
    until(lambda: shop.fal(*there, check=False).returncode == 1, "the shell has ended")


def test_a_shell_ends_with_its_key(shop: Controller) -> None:
    key_id, key = key_of(shop, "--scope", "ADMIN")
    browser = Browser(shop.host)
    browser.log_in(key)
    with shell_of(browser, runner_of(shop)) as shell:
        shell.send(b"echo $((6*7))\r")
        read_until(shell, b"42")
        shop.fal("keys", "revoke", key_id)
        with pytest.raises(ConnectionClosed):
            read_until(shell, b"what no shell writes")


def test_a_shell_is_for_keys_and_pages_that_may(shop: Controller, owner: Browser) -> None:
    def refused(browser: Browser, runner: str, **more: str) -> int:
        with pytest.raises(InvalidStatus) as caught, shell_of(browser, runner, **more):
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


def test_a_key_that_reads_changes_nothing(shop: Controller) -> None:
    reader = Browser(shop.host)
    reader.log_in(key_of(shop, "--preset", "READONLY")[1])
    runner = runner_of(shop)
    for path in (
        "/ui/", "/ui/apps", "/ui/apps/shop", "/ui/runners", f"/ui/runners/{runner}", "/ui/requests", "/ui/keys",
        "/ui/secrets", "/ui/nodes", "/ui/environments", "/ui/drains", "/ui/notices", "/ui/accounts",
    ):  # fmt: skip
        page = reader.get(path)
        assert page.status == 200
        assert page.actions == set(), path
    for path in (
        "apps/shop/scale",
        "apps/shop/rollout",
        "apps/shop/flush",
        "keys",
        "secrets",
        "apps/shop/playground",
        "environments",
        "environments/main/delete",
        "drains/any/pause",
        "notices/any/test",
        f"runners/{runner}/kill",
    ):
        answer = reader.post(f"/ui/{path}")
        assert answer.status == 403, path
        assert "Insufficient permissions" in answer.text
    assert runner_of(shop) == runner


def test_what_another_account_has_is_not_found(shop: Controller, owner: Browser) -> None:
    made = json.loads(shop.fal("teams", "create", "stranger", "--user", "--json").stdout)
    stranger = Browser(shop.host)
    assert stranger.log_in(f"{made['key_id']}:{made['key_secret']}").status == 303
    runner = runner_of(shop)
    assert "shop" not in stranger.get("/ui/").text + stranger.get("/ui/apps").text + stranger.get("/ui/runners").text
    for path in ("/ui/apps/shop", f"/ui/runners/{runner}"):
        assert stranger.get(path).status == 404
    for path in ("/ui/apps/shop/scale", "/ui/apps/shop/flush", f"/ui/runners/{runner}/kill"):
        assert stranger.post(path).status == 404
    assert owner.get(f"/ui/runners/{runner}").status == 200


def test_a_key_for_one_app_sees_that_app(shop: Controller) -> None:
    browser = Browser(shop.host)
    answer = browser.log_in(key_of(shop, "--preset", "SERVERLESS", "--for-app", "shop")[1])
    assert answer.place == "/ui/apps/shop"
    assert browser.get("/ui/apps/shop").status == 200
    assert browser.get("/ui/apps/other").status == 404
    assert browser.get("/ui/runners").status == 403


def test_a_session_ends_with_its_key(shop: Controller) -> None:
    key_id, key = key_of(shop, "--scope", "ADMIN")
    browser = Browser(shop.host)
    browser.log_in(key)
    assert browser.get("/ui/").status == 200
    shop.fal("keys", "revoke", key_id)
    assert browser.get("/ui/").place.startswith("/ui/login")
    live = browser.get(
        "/ui/", sec_fetch_mode="cors", sec_fetch_dest="empty", hx_request="true", x_fal_page=browser.token
    )
    assert live.headers["hx-redirect"] == "/ui/login"


def test_changes_are_recorded(shop: Controller, owner: Browser) -> None:
    assert owner.post("/ui/apps/shop/scale", keep_alive="301").status == 303
    rows = json.loads(shop.fal("audit", "list", "--json").stdout)["entries"]
    row = next(row for row in rows if row["action"] == "POST /ui/apps/{app}/scale")
    assert row["target"] == "app=shop"


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"keep_alive": "x"}, "give a whole number"),
        ({"min_concurrency": "5", "max_concurrency": "1"}, "above max_concurrency"),
    ],
)
def test_a_wrong_setting_is_named(owner: Browser, form: dict[str, str], words: str) -> None:
    answer: Shown = owner.post("/ui/apps/shop/scale", **form)
    assert answer.status == 400
    assert words in answer.text


def test_a_page_loads_less_than_40_kb_of_script(shop: Controller, owner: Browser) -> None:
    for path in (
        "",
        "apps/shop",
        "apps/shop/simulate",
        "apps/shop/logs",
        "apps/shop/playground",
        "requests",
        f"runners/{runner_of(shop)}",
    ):
        places = re.findall(r'<script src="([^"]*)"', owner.get(f"/ui/{path}").text)
        assert places
        sizes = [int(owner.head(place, accept_encoding="gzip").headers["content-length"]) for place in places]
        assert sum(sizes) <= 40 * 1024, (path, sizes)


def test_a_link_puts_no_words_on_the_login(owner: Browser) -> None:
    assert "send money" not in Browser(owner.host).get("/ui/login?notice=send+money").text
    assert "&lt;b&gt;" in owner.get("/ui/apps?notice=<b>").text


def test_files_of_pages_are_kept_by_browsers(owner: Browser) -> None:
    page = Browser(owner.host).get("/ui/login").text
    places = re.findall(r'(?:src|href)="(/ui/static/[^"]*)"', page)
    assert len(places) >= 4
    for place in places:
        file = Browser(owner.host).get(place)
        assert file.status == 200
        assert "immutable" in file.headers["cache-control"]
    assert Browser(owner.host).get("/ui/static/nothing.js").status == 404
    assert Browser(owner.host).get("/ui/nothing").status == 404
    assert Browser(owner.host).get("/ui").place == "/ui/"
