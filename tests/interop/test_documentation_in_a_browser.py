"""The site at /docs in headless Chromium. Scripts run under its policy, search works, and no other host is called."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.support.browser import Page, browser
from tests.support.controller import ROOT, Controller

AXE = ROOT / ".cache" / "interop-javascript" / "node_modules" / "axe-core" / "axe.min.js"
PATHS = (
    "",
    "tutorials/first-app.html",
    "howto/incidents.html",
    "reference/rpc/app.html",
    "explanation/architecture.html",
)


@pytest.fixture(scope="module")
def page(controller: Controller) -> Iterator[Page]:
    with browser() as page:
        yield page
        assert page.problems == []


def test_the_dashboard_leads_to_it(controller: Controller, page: Page) -> None:
    page.open(f"http://{controller.host}/ui/login")
    page.click("footer a")
    assert page.run("location.pathname + ' ' + document.querySelector('h1').textContent").startswith("/docs/ ")


def test_it_searches(controller: Controller, page: Page) -> None:
    page.open(f"http://{controller.host}/docs/")
    page.run("document.querySelector('.md-search__button').click()")
    roots = "[...document.querySelectorAll('*')].map((each) => each.shadowRoot)"
    shadow = f"{roots}.find((each) => each?.querySelector('input'))"
    page.wait_for(shadow)
    page.run(f"{shadow}.querySelector('input').focus()")
    page.send("Input.insertText", text="incidents out of memory")
    page.wait_for(
        f"[...{shadow}.querySelectorAll('a')].some((each) => each.href.includes('/docs/howto/incidents.html'))"
    )


def test_nothing_comes_from_another_host(controller: Controller, page: Page) -> None:
    for path in PATHS:
        page.open(f"http://{controller.host}/docs/{path}")
        loaded = page.run("performance.getEntriesByType('resource').map((each) => each.name)")
        assert loaded
        assert {urlsplit(each).netloc for each in loaded} == {controller.host}


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1440])
def test_axe_finds_nothing_and_nothing_overflows(controller: Controller, page: Page, width: int, dark: bool) -> None:
    page.show(width, dark=dark)
    found = {}
    for path in PATHS:
        page.open(f"http://{controller.host}/docs/{path}")
        assert page.run("document.body.dataset.mdColorScheme") == ("slate" if dark else "default")
        page.run(AXE.read_text() + "; 0")
        bad = page.run(
            "axe.run('.md-content').then((found) => found.violations.map((each) => "
            "each.id + ': ' + each.nodes.map((node) => node.html + ' ' + node.failureSummary).slice(0, 3).join(' | ')))"
        )
        wide = page.run("document.documentElement.scrollWidth > innerWidth")
        found |= {path: bad} if bad or wide else {}
    assert not found, found
