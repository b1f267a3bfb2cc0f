"""The dashboard in headless Chromium, with its script, and checked by axe."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.browser import Page, browser
from tests.support.controller import ROOT, Controller
from tests.support.dashboard import key_of

AXE = ROOT / ".cache" / "interop-javascript" / "node_modules" / "axe-core" / "axe.min.js"
APP = """
import fal
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field


class Order(BaseModel):
    thing: str = Field(default="bread")
    count: int = Field(default=1, ge=1, le=9)


class Shop(fal.App, name="shop", keep_alive=300):
    @fal.endpoint("/")
    def sell(self, order: Order) -> dict:
        if order.count == 9:
            raise RuntimeError("only eight are left")
        return {"sold": order.thing}

    @fal.endpoint("/stream")
    def stream(self, order: Order) -> StreamingResponse:
        events = (f'data: {{"number": {number}}}\\n\\n' for number in range(order.count))
        return StreamingResponse(events, media_type="text/event-stream")

    @fal.realtime("/live")
    def live(self, order: Order) -> dict:
        numbers = [0, -1, 200, -200, 70_000, -70_000, 2**40, 0.5]
        picture = b"\\x89PNG" + bytes(300)
        return {"sold": order.thing * 20, "numbers": numbers, "none": None, "true": True, "picture": picture}
"""


@pytest.fixture(scope="module")
def page(controller: Controller, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Return a logged-in browser. Its controller has an app that has a failed request."""
    path = tmp_path_factory.mktemp("shop") / "shop.py"
    path.write_text(APP)
    controller.fal("deploy", str(path))
    assert controller.call("/local/shop/", {"count": 9}, key=controller.key).status == 500
    with browser() as page:
        page.open(f"http://{controller.host}/ui/")
        page.run(f"document.querySelector('#key').value = '{controller.key}'")
        page.run("document.querySelector('.login').requestSubmit()")
        page.loaded()
        yield page
        assert page.problems == []
    controller.fal("apps", "delete", "shop")


def test_a_failing_request_is_two_clicks_away(controller: Controller, page: Page) -> None:
    page.open(f"http://{controller.host}/ui/")
    page.click("#failed ~ .rows a[href*='/requests/']")
    assert "only eight are left" in page.run("document.querySelector('.log').textContent")
    assert page.run("document.querySelector('h1').textContent")


def test_the_playground_calls_an_app(controller: Controller, page: Page) -> None:
    page.open(f"http://{controller.host}/ui/apps/shop")
    page.click("a[href$='/playground']")
    page.run(
        "{ const field = document.querySelector('[name=\"in.thing\"]'); field.value = 'it\\'s rye';"
        " field.dispatchEvent(new Event('input', { bubbles: true })); }"
    )
    assert page.run("JSON.parse(document.querySelector('#json').value).thing") == "it's rye"
    assert "it'\\''s rye" in page.run("document.querySelector('[data-body=shell]').textContent")
    page.click("button[value=form]")
    assert '"sold": "it\'s rye"' in page.run("document.querySelector('#answer pre').textContent")


def test_the_playground_shows_a_stream_as_it_comes(controller: Controller, page: Page) -> None:
    page.open(f"http://{controller.host}/ui/apps/shop/playground/stream")
    assert not page.run("document.querySelector('[data-close]').checkVisibility()"), "nothing is open yet"
    page.run("document.querySelector('#json').value = JSON.stringify({ count: 3 })")
    page.run("document.querySelector('[data-send]').click()")
    page.wait_for("document.querySelector('[data-standing]').textContent.startsWith('200, 3 parts')")
    texts = page.run("[...document.querySelectorAll('[data-parts] pre')].map((each) => each.textContent)")
    assert [json.loads(text) for text in texts] == [{"number": number} for number in (2, 1, 0)]
    page.run("document.querySelector('#json').value = JSON.stringify({ count: 'many' })")
    page.run("document.querySelector('[data-send]').click()")
    page.wait_for("document.querySelector('[data-standing]').textContent.startsWith('422, 1 part')")


def test_the_playground_holds_a_realtime_session(controller: Controller, page: Page) -> None:
    page.open(f"http://{controller.host}/ui/apps/shop/playground/live")
    for count in (1, 2):
        page.run("document.querySelector('[data-send]').click()")
        page.wait_for(f"document.querySelectorAll('[data-parts] li').length === {count}")
    shown = page.run("JSON.parse(document.querySelector('[data-parts] pre').textContent)")
    assert shown == {
        "sold": "bread" * 20, "numbers": [0, -1, 200, -200, 70_000, -70_000, 2**40, 0.5], "none": None, "true": True,
        "picture": "304 bytes",
    }  # fmt: skip
    assert page.run("document.querySelector('[data-parts] img').src").startswith("data:image/png;base64,iVBORw")
    page.run("document.querySelector('[data-close]').click()")
    page.wait_for("document.querySelector('[data-standing]').textContent === 'The session has ended'")


def test_a_shell_is_typed_into(controller: Controller, page: Page) -> None:
    runners = json.loads(controller.fal("runners", "list", "--json").stdout)["runners"]
    runner = next(each["runner_id"] for each in runners if each["alias"] == "shop")
    page.open(f"http://{controller.host}/ui/runners/{runner}")
    page.click("a[href$='/shell']")
    shown = "document.querySelector('.xterm-accessibility-tree')?.textContent"
    page.wait_for(f"{shown}?.includes('#')")
    page.type("echo $((6*7)); exit 3\r")
    page.wait_for(f"{shown}.includes('42')")
    page.wait_for("document.querySelector('[data-standing]').textContent.includes('exit code 3')")


def test_live_parts_follow_what_happens(controller: Controller, page: Page) -> None:
    page.open(f"http://{controller.host}/ui/apps")
    controller.fal("apps", "scale", "shop", "--min-concurrency", "2", "--max-concurrency", "3")
    row = "document.querySelector('#live a[href=\"/ui/apps/shop\"]').closest('tr')"  # other tests have apps on it, too
    page.wait_for(f"{row}.children[2].textContent === '2'")
    controller.fal("apps", "scale", "shop", "--min-concurrency", "0")


def test_a_log_follows_its_lines(controller: Controller, page: Page) -> None:
    page.open(f"http://{controller.host}/ui/apps/shop/logs")
    lines = page.run("document.querySelectorAll('.line').length")
    page.wait_for("document.querySelector('.log').hasAttribute('hx-sse:connect')")
    assert controller.call("/local/shop/", {"count": 1}, key=controller.key).status == 200
    page.wait_for(f"document.querySelectorAll('.line').length > {lines}")
    assert page.run("new Set([...document.querySelectorAll('.line')].map((line) => line.id)).size") == page.run(
        "document.querySelectorAll('.line').length"
    )


def test_live_parts_go_on_after_a_wrong_setting(controller: Controller, page: Page) -> None:
    page.open(f"http://{controller.host}/ui/apps/shop")
    page.run(
        "{ const form = document.querySelector('form[action$=\"/scale\"]'); form.noValidate = true;"
        " form.querySelector('[name=max_concurrency]').value = '-1'; form.requestSubmit(); }"
    )
    page.loaded()
    assert page.run("document.querySelector('.wrong') !== null")
    (problem,) = page.problems  # the console says each answer that is an error
    assert "400" in problem
    page.problems.clear()
    page.run("document.activeElement.blur()")  # nothing moves beneath who types
    controller.fal("apps", "scale", "shop", "--max-concurrency", "7")
    page.wait_for("document.querySelector('#live .figures').textContent.includes('/ 7')")


def test_a_followed_log_leads_to_the_login_when_its_key_ends(controller: Controller, page: Page) -> None:
    key_id, key = key_of(controller, "--scope", "ADMIN")
    with browser() as other:
        other.open(f"http://{controller.host}/ui/apps/shop/logs")
        other.run(f"document.querySelector('#key').value = '{key}'")
        other.run("document.querySelector('.login').requestSubmit()")
        other.loaded()
        other.wait_for("document.querySelector('.log').hasAttribute('hx-sse:connect')")
        controller.fal("keys", "revoke", key_id, "--yes")
        other.loaded()
        assert other.run("location.pathname") == "/ui/login"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1440])
def test_axe_finds_nothing_and_nothing_overflows(controller: Controller, page: Page, width: int, dark: bool) -> None:
    page.show(width, dark=dark)
    runner = controller.fal("runners", "list", "--json").stdout.split('"runner_id": "')[1].split('"')[0]
    apps = json.loads(controller.fal("apps", "list", "--json").stdout)["apps"]
    revision = next(app["revision"] for app in apps if app["alias"] == "shop")
    paths = (
        "", "apps", "apps/shop", "apps/shop/logs", "apps/shop/playground", "apps/shop/playground/live", "requests",
        "runners", f"runners/{runner}", f"runners/{runner}/shell",
        f"apps/shop/revisions/{revision}", "apps/shop/simulate", "keys", "secrets", "audit", "nodes", "environments",
        "drains", "notices", "accounts", "nothing",
    )  # fmt: skip
    found = {}
    for path in paths:
        page.open(f"http://{controller.host}/ui/{path}")
        page.run(AXE.read_text() + "; 0")
        bad = page.run(
            "axe.run().then((found) => found.violations.map((each) => each.id + ': ' + each.nodes.map((node) => "
            "node.html + ' ' + node.failureSummary).slice(0, 3).join(' | ')))"
        )
        wide = page.run("document.documentElement.scrollWidth > innerWidth")
        found |= {path: bad} if bad or wide else {}
    page.problems[:] = [each for each in page.problems if "404" not in each]
    assert not found, found
