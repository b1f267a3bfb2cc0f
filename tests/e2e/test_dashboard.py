"""The dashboard over real HTTP, as in a browser without JavaScript."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.controller import Controller
from tests.support.dashboard import SHOP, Browser, Shown, key_of, runner_of
from tests.support.waiting import until


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


@pytest.mark.parametrize("page", ["/ui/apps", "/ui/apps/shop"])
def test_a_slash_at_the_end_leads_to_the_same_page(owner: Browser, page: str) -> None:
    found = owner.get(f"{page}/")
    assert (found.status, found.headers["location"]) == (307, page)
    assert owner.get(page).status == 200


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
        host, _, port = shop.host.partition(":")
        with socket.create_connection((host, port)) as line:
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
    assert page.actions == {"/ui/drains", "/ui/drains/archive/pause", "/ui/drains/archive/delete"}
    assert owner.post("/ui/drains/archive/pause").place.startswith("/ui/drains?")
    paused = owner.get("/ui/drains")
    assert "paused" in paused.text
    assert "/ui/drains/archive/resume" in paused.actions
    assert owner.post("/ui/drains/archive/resume").status == 303
    assert owner.post("/ui/drains/other/pause").status == 404
    assert owner.post("/ui/drains/archive/delete").status == 303
    assert json.loads(shop.fal("drains", "list", "--json").stdout)["drains"] == []


def test_a_drain_is_made_and_what_is_wrong_stands_beside_its_field(shop: Controller, owner: Browser) -> None:
    form = {
        "name": "archive", "url": "https://logs.example.com/in", "format": "loki", "least_level": "WARNING",
        "apps": "shop, other", "headers": "Authorization: Bearer hunter2\n", "signing_key": "",
    }  # fmt: skip
    for field, value, words in (
        ("name", "no name", "no name"),
        ("url", "ftp://x", "url"),
        ("format", "xml", "choose one of ndjson"),
        ("headers", "Host: here", "is not a header that a drain can have"),
        ("signing_key", "short", "signing_key has 5 characters"),
    ):
        wrong = owner.post("/ui/drains", **{**form, field: value})
        assert wrong.status == 400, field
        (said,) = re.findall(rf'<span class="wrong" id="{field}-wrong" role="alert">([^<]*)</span>', wrong.text)
        assert words in said
        assert f'{field}-wrong" aria-invalid="true"' in wrong.text
        assert 'value="shop, other"' in wrong.text, "what was entered stays"
        assert "short" not in wrong.text
    made = owner.post("/ui/drains", **form)
    assert made.place.startswith("/ui/drains?notice=Drain%20archive%20begins")
    assert "there%20is%20no%20app%20%27other%27" in made.place
    page = owner.get("/ui/drains").text
    assert "warning and above, of shop, other, as loki" in page
    assert "hunter2" not in page + owner.get("/ui/audit").text
    again = owner.post("/ui/drains", **form)
    assert (again.status, '<p class="problem" role="alert">drain &#39;archive&#39; exists already' in again.text) == (
        409,
        True,
    )
    owner.post("/ui/drains/archive/delete")


def test_notices_are_shown(shop: Controller, owner: Browser) -> None:
    assert "Nobody is told" in owner.get("/ui/notices").text
    shop.fal("notices", "create", "duty", "https://hooks.example.com/hunter2", "--on", "queue-size=50")
    page = owner.get("/ui/notices")
    for text in ("duty", "hooks.example.com", "queue-size (50)", "quiet", "all apps"):
        assert text in page.text, text
    assert "hunter2" not in page.text
    assert page.actions == {"/ui/notices", "/ui/notices/duty/test", "/ui/notices/duty/delete"}
    assert owner.post("/ui/notices/duty/delete").status == 303


def test_a_notice_is_made(shop: Controller, owner: Browser) -> None:
    form = {"name": "duty", "form": "email", "url": "smtp://mail.example.com:587", "to": "a@example.com, b@example.com"}
    for field, value, status in (("to", "nobody", 400), ("url", "https://x", 400), ("queue-size", "many", 400)):
        wrong = owner.post("/ui/notices", **{**form, field: value})
        assert (wrong.status, f'id="{field}-wrong"' in wrong.text) == (status, True), field
    assert owner.post("/ui/notices", **form, **{"queue-size": "50", "error-share": ""}).status == 303
    page = owner.get("/ui/notices").text
    assert "a@example.com, b@example.com, by email" in page
    assert "queue-size (50)</dd>" in page, "a condition without a threshold is left out"
    owner.post("/ui/notices/duty/delete")


def test_accounts_are_those_that_the_key_may_see(shop: Controller, owner: Browser) -> None:
    made = json.loads(shop.fal("teams", "create", "bakers", "--json").stdout)
    page = owner.get("/ui/accounts").text
    for text in ("Quotas of local", "queued requests", "100,000", "bakers"):
        assert text in page, text
    team = Browser(shop.host)
    team.log_in(f"{made['key_id']}:{made['key_secret']}")
    assert "Quotas of bakers" in team.get("/ui/accounts").text
    seen = team.get("/ui/accounts")
    assert "local" not in seen.text.replace("local-", "")
    assert seen.actions == set(), "only the controller's owner makes accounts"
    assert team.post("/ui/accounts", nickname="mine", kind="team").status == 403
    assert 'id="nickname-wrong"' in owner.post("/ui/accounts", nickname="No Name", kind="team").text
    (key,) = re.findall(
        r"<code data-copy>([^<]*)</code>",
        owner.post("/ui/accounts", nickname="millers", kind="team", full_name="The <Mill>").text,
    )
    assert "The &lt;Mill&gt;" in owner.get("/ui/accounts").text
    miller = Browser(shop.host)
    assert miller.log_in(key).status == 303
    assert "Quotas of millers" in miller.get("/ui/accounts").text


def test_a_revision_is_compared_before_the_app_moves_back(shop: Controller, owner: Browser, tmp_path: Path) -> None:
    changed = tmp_path / "shop.py"
    changed.write_text(SHOP.replace("sold <b>one</b>", "sold <i>one</i>"))
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
        "drains",
        "drains/any/pause",
        "drains/any/delete",
        "notices",
        "notices/any/test",
        "notices/any/delete",
        "accounts",
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
    assert all(f'name="{name}" type="number" value="{value}"' in answer.text for name, value in form.items())


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
