"""The documentation site at /docs, which `make docs` builds into the package."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from fal_server.http.routes.guard import Guard
from fal_server.http.routes.hosts import folder_of

SITE = Path(__file__).resolve().parents[1] / "documentation"
_KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".xml": "application/xml",
}
# Inline scripts of a page, which have no address and are not data.
_INLINE = re.compile(rb"<script(?![^>]*\b(?:src|type)=)[^>]*>(.*?)</script>", re.DOTALL)
_SAYING = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<h1>{title}</h1>
<p>{text}</p>
"""
_NOT_BUILT = _SAYING.format(
    title="The documentation is not installed",
    text="This controller was installed from a checkout in which the site had not been built. There, run "
    "<code>make docs</code>, install again, and start the controller again. The folder <code>docs</code> of the "
    "checkout has the same pages.",
)
_NOT_FOUND = _SAYING.format(title="There is no such page", text='<a href="/docs/">Documentation</a>')


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A file of the site, ready to send.

    Attributes:
        content: compressed.
        scripts: the sources that its content security policy allows for its scripts.
    """

    content: bytes
    kind: str
    tag: str
    scripts: str


class DocumentationRoutes:
    """The routes of the site. It is read once, at the first request.

    Args:
        site: the folder of the built site, which need not exist.
    """

    def __init__(self, guard: Guard, site: Path = SITE) -> None:
        self._site = site
        self._files: Mapping[str, _File] | None = None
        self.routes = [
            guard.open_route("GET", "/docs", self._root),
            guard.open_route("GET", "/docs/{path:path}", self._file),
        ]

    async def _root(self, request: Request) -> Response:
        return RedirectResponse("/docs/", 308)

    async def _file(self, request: Request) -> Response:
        if self._files is None:
            self._files = await asyncio.to_thread(_read, self._site)
        if not self._files:
            return HTMLResponse(_NOT_BUILT, 404, _headers(request, ""))
        file = self._files.get(request.path_params["path"] or "index.html")
        if file is None:
            return HTMLResponse(_NOT_FOUND, 404, _headers(request, ""))
        headers = {
            **_headers(request, file.scripts),
            "etag": file.tag,
            "cache-control": "no-cache",
            "vary": "accept-encoding",
        }
        if file.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        headers["content-type"] = file.kind
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(file.content, headers={**headers, "content-encoding": "gzip"})
        return Response(gzip.decompress(file.content), headers=headers)


def _read(site: Path) -> Mapping[str, _File]:
    """Return a site's files by their paths, ignoring other kinds of files."""
    found: dict[str, _File] = {}
    for path in sorted(site.rglob("*")) if site.is_dir() else ():
        kind = _KINDS.get(path.suffix)
        if kind is not None:
            content = path.read_bytes()
            hashes = {_hash(script) for script in _INLINE.findall(content)} if path.suffix == ".html" else set[str]()
            found[path.relative_to(site).as_posix()] = _File(
                content=gzip.compress(content, mtime=0),
                kind=kind,
                tag=f'W/"{hashlib.sha256(content).hexdigest()[:32]}"',
                scripts=" ".join(sorted(hashes)),
            )
    return found


def _hash(script: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"


def _headers(request: Request, scripts: str) -> Mapping[str, str]:
    """Return the headers of a page or file. An app's page has the same origin, so only the site's folder is allowed.

    The site's search creates styles in the page. They can load nothing from other places.

    Args:
        scripts: the page's inline scripts that may run.
    """
    folder = folder_of(request, "/docs/")
    policy = (
        f"default-src 'none'; script-src {folder} {scripts}; worker-src {folder}; connect-src {folder}; "
        f"style-src {folder} 'unsafe-inline'; img-src {folder} data:; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )
    return {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
    }
