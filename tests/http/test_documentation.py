"""The site at /docs: its files, headers and policy."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from starlette.applications import Starlette

from fal_server.http.routes.documentation import DocumentationRoutes
from fal_server.http.routes.guard import Guard
from tests.http.support import running_server

INLINE = "window.here = 1"
PAGE = f"""<!doctype html><script>{INLINE}</script><script src="assets/x.js"></script>
<script id="data" type="application/json">{{"a": 1}}</script><p>Hello</p>"""
FILES = {"index.html": PAGE, "howto/a.html": "<p>A</p>", "assets/x.js": "1", "search.json": "{}", "left.odt": "no"}


@asynccontextmanager
async def served(site: Path) -> AsyncGenerator[httpx.AsyncClient]:
    nobody = cast("Any", None)
    routes = DocumentationRoutes(Guard(nobody, nobody, nobody, nobody), site).routes
    async with (
        running_server(rest=Starlette(routes=routes)) as h,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{h.port}", timeout=20, trust_env=False) as client,
    ):
        yield client


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "secret.txt").write_text("not of the site")
    return tmp_path / "site"


@pytest.mark.parametrize(
    ("path", "name", "kind"),
    [
        ("/docs/", "index.html", "text/html; charset=utf-8"),
        ("/docs/howto/a.html", "howto/a.html", "text/html; charset=utf-8"),
        ("/docs/assets/x.js", "assets/x.js", "text/javascript; charset=utf-8"),
        ("/docs/search.json", "search.json", "application/json"),
    ],
)
async def test_files_have_their_kinds_and_are_sent_once(site: Path, path: str, name: str, kind: str) -> None:
    async with served(site) as client:
        answer = await client.get(path)
        assert (answer.status_code, answer.text) == (200, FILES[name])
        assert answer.headers["content-type"] == kind
        assert answer.headers["content-encoding"] == "gzip"
        plain = await client.get(path, headers={"accept-encoding": "identity"})
        assert (plain.text, "content-encoding" in plain.headers) == (FILES[name], False)
        again = await client.get(path, headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        head = await client.head(path)
        assert (head.status_code, head.content) == (200, b"")


async def test_a_page_runs_its_own_scripts_and_those_of_the_folder_alone(site: Path) -> None:
    async with served(site) as client:
        policy = (await client.get("/docs/")).headers["content-security-policy"]
        parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
        host = f"{client.base_url.host}:{client.base_url.port}"
        digest = base64.b64encode(hashlib.sha256(INLINE.encode()).digest()).decode()
        assert parts["script-src"].split() == [f"{host}/docs/", f"'sha256-{digest}'"]
        assert parts["default-src"] == "'none'"
        assert "unsafe" not in parts["script-src"]
        strange = await client.get("/docs/", headers={"host": "x;script-src *"})
        assert "*" not in strange.headers["content-security-policy"]


async def test_nothing_else_is_served(site: Path) -> None:
    async with served(site) as client:
        for path in (
            "/docs/none.html",
            "/docs/left.odt",
            "/docs/../secret.txt",
            "/docs/%2e%2e/secret.txt",
            "/docs/howto",
        ):
            answer = await client.get(path)
            assert (answer.status_code, "not of the site" in answer.text) == (404, False), path
        moved = await client.get("/docs")
        assert (moved.status_code, moved.headers["location"]) == (308, "/docs/")


async def test_without_a_site_it_says_how_to_get_one(tmp_path: Path) -> None:
    async with served(tmp_path / "none") as client:
        answer = await client.get("/docs/")
        assert (answer.status_code, "make docs" in answer.text) == (404, True)
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
