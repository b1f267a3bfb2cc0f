"""Take the pictures of the dashboard's pages. Write the page of the documentation that shows them.

Run by `make pictures`. A controller of its own has an app with requests, failures and queued work, so that each page
has something to show.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.browser import Page, browser
from tests.support.controller import ROOT, Controller, running
from tests.support.waiting import until

PAGE = ROOT / "docs" / "reference" / "dashboard.md"
IMAGES = PAGE.parent / "images" / "dashboard"
WIDTHS = (1440, 390)
HEAD = """# Pages of the dashboard

<!-- Made by `make pictures`. Change tests/interop/pictures.py instead. -->

Each page on a screen and on a phone, light and dark. [See and run it in a browser](../howto/dashboard.md) says what the
pages are for.
"""
APP = """
import fal
from pydantic import BaseModel, Field


class Order(BaseModel):
    thing: str = Field(default="bread", description="What to sell")
    count: int = Field(default=1, ge=1, le=9)


class Shop(fal.App, name="shop", keep_alive=600, min_concurrency=1, max_concurrency=2):
    @fal.endpoint("/")
    def sell(self, order: Order) -> dict:
        print(f"sold {order.count} of {order.thing}")
        if order.count == 9:
            raise RuntimeError("only eight are left")
        return {"sold": order.thing, "count": order.count}

    @fal.realtime("/live")
    def live(self, order: Order) -> dict:
        return {"sold": order.thing}
"""


def furnish(controller: Controller, folder: Path) -> Mapping[str, str]:
    """Give each page something to show; return the pages' paths by title."""
    file = folder / "shop.py"
    file.write_text(APP)
    controller.fal("deploy", str(file), "--message", "the first shop")
    file.write_text(APP.replace("sold {order.count} of", "{order.count} x").replace("=600", "=900"))
    controller.fal("deploy", str(file), "--message", "print the count first")
    for thing, count in (("bread", 2), ("cheese", 1), ("cake", 9), ("apples", 4), ("bread", 9), ("tea", 1)):
        controller.call("/local/shop/", {"thing": thing, "count": count}, key=controller.key)
    queued = controller.call("/queue/local/shop", {"thing": "milk", "count": 3}, key=controller.key).json()
    assert isinstance(queued, dict)
    controller.fal("secrets", "set", "PAYMENT_TOKEN=none")
    controller.fal("environments", "create", "staging", "--description", "what is tried before it is sold")
    controller.fal("keys", "create", "--preset", "READONLY", "--desc", "the screen in the hall")
    controller.fal("teams", "create", "alice", "--user")
    controller.fal("teams", "create", "crew")
    controller.fal("teams", "add", "crew", "alice", "--role", "developer")
    controller.fal("drains", "create", "archive", "https://logs.example/in")
    controller.fal("notices", "create", "hooks", "https://hooks.example/fal", "--on", "queue-size=50")

    def failed() -> list[dict[str, Any]]:
        rows = json.loads(controller.fal("requests", "list", "--json").stdout)["requests"]
        return [row for row in rows if row["status_code"] == 500]

    until(lambda: len(failed()) == 2, "the rows of the failed requests")
    [runner, *_] = json.loads(controller.fal("runners", "list", "--json").stdout)["runners"]
    revisions = json.loads(controller.fal("apps", "list-rev", "shop", "--json").stdout)["revisions"]
    earlier = next(each["application_id"] for each in revisions if not each["current"])
    return {
        "Overview": "",
        "Apps": "apps",
        "An app": "apps/shop",
        "Its log": "apps/shop/logs",
        "Its playground": "apps/shop/playground",
        "Realtime in the playground": "apps/shop/playground/live",
        "A revision": f"apps/shop/revisions/{earlier}",
        "Other settings, simulated": "apps/shop/simulate",
        "Requests": "requests",
        "A failed request": f"apps/shop/requests/{failed()[0]['request_id']}",
        "A queued request": f"apps/shop/requests/{queued['request_id']}",
        "Runners": "runners",
        "A runner": f"runners/{runner['runner_id']}",
        "A shell": f"runners/{runner['runner_id']}/shell",
        "Nodes": "nodes",
        "Keys": "keys",
        "Secrets": "secrets",
        "Environments": "environments",
        "Drains": "drains",
        "Notices": "notices",
        "Accounts": "accounts",
        "Audit": "audit",
    }


def log_in(controller: Controller, page: Page) -> None:
    """Open the dashboard with the administrator's key."""
    page.open(f"http://{controller.host}/ui/")
    page.run(f"document.querySelector('#key').value = '{controller.key}'")
    page.run("document.querySelector('.login').requestSubmit()")
    page.loaded()


def main() -> None:
    """Take all pictures and write the page."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    for old in IMAGES.glob("*.webp"):
        old.unlink()
    sections = [HEAD]
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "state") as controller, browser() as page:
        paths = furnish(controller, Path(folder))
        log_in(controller, page)
        for title, path in paths.items():
            name = title.lower().replace(",", "").replace(" ", "-")
            cells: list[str] = []
            for width in WIDTHS:
                for dark in (False, True):
                    page.show(width, dark=dark)
                    page.open(f"http://{controller.host}/ui/{path}")
                    if path.endswith("/shell"):
                        page.wait_for("document.querySelector('.xterm-accessibility-tree')?.textContent.includes('#')")
                    look = "dark" if dark else "light"
                    page.picture(IMAGES / f"{name}-{width}-{look}.webp")
                    cells.append(f"![{title}, {width} wide, {look}](images/dashboard/{name}-{width}-{look}.webp)")
            wide, narrow = (" ".join(cells[start : start + 2]) for start in (0, 2))
            sections.append(f"## {title}\n\n{wide}\n\n{narrow}\n")
            print(title, flush=True)
        assert page.problems == [], page.problems  # such as a page that is not found
    PAGE.write_text("\n".join(sections))


if __name__ == "__main__":
    main()
