"""Build the site of docs/ into the controller's package. The controller serves it at /docs.

The build fails for a broken link, also to anchors and files, and for content from another host.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SITE = ROOT / "fal_server" / "http" / "documentation"
WORK = ROOT / ".cache" / "docs"
_SECTION = re.compile(r"^## (?P<name>.+)\n(?P<rows>(?:(?!^##).*\n)*)", re.MULTILINE)
_ROW = re.compile(r"^\| \[(?P<title>[^\]]+)\]\((?P<page>[^)]+\.md)\) \|", re.MULTILINE)
_OUTWARD = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>(?:\.\./)+[^)#\s]+)\)")
# A page that lists the others of its folder stands for them.
_LISTED_BY_THEIR_INDEX = ("explanation/decisions/", "reference/rpc/")
_LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}


def navigation() -> list[dict[str, object]]:
    """Return the sections and pages of docs/README.md, which lists all of them.

    Raises:
        SystemExit: a page is missing from it.
    """
    readme = (DOCS / "README.md").read_text()
    nav: list[dict[str, object]] = [{"Documentation": "README.md"}]
    listed = {"README.md"}
    for section in _SECTION.finditer(readme):
        pages = [{row["title"]: row["page"]} for row in _ROW.finditer(section["rows"])]
        listed |= {page for each in pages for page in each.values()}
        nav.append({section["name"]: pages})
    there = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    missing = sorted(page for page in there - listed if not page.startswith(_LISTED_BY_THEIR_INDEX))
    if missing:
        raise SystemExit(f"docs/README.md does not list {', '.join(missing)}")
    return nav


def configuration() -> dict[str, object]:
    """Return the site's settings, in the builder's format."""
    return {
        "site_name": "fal-grpc",
        "site_description": "Run fal serverless apps anywhere.",
        "docs_dir": "docs",
        "site_dir": "site",
        "use_directory_urls": False,
        "nav": navigation(),
        "extra_css": ["site/site.css"],
        "extra_javascript": ["site/site.js"],
        "extra": {"generator": False},
        "theme": {
            "font": False,
            "logo": "site/icon.svg",
            "favicon": "site/icon.svg",
            "features": [
                "content.code.copy",
                "navigation.footer",
                "navigation.indexes",
                "navigation.sections",
                "navigation.top",
                "search.highlight",
                "toc.follow",
            ],
            "palette": [
                {"media": "(prefers-color-scheme)", "toggle": {"icon": "lucide/sun-moon", "name": "Always light"}},
                {
                    "media": "(prefers-color-scheme: light)",
                    "scheme": "default",
                    "toggle": {"icon": "lucide/sun", "name": "Always dark"},
                },
                {
                    "media": "(prefers-color-scheme: dark)",
                    "scheme": "slate",
                    "toggle": {"icon": "lucide/moon", "name": "As the system"},
                },
            ],
        },
        "markdown_extensions": [
            "tables",
            "attr_list",
            {"toc": {"permalink": True}},
            "pymdownx.superfences",
            "pymdownx.highlight",
        ],
    }


class Page(HTMLParser):
    """The links, loaded content and anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.add(values["href"])
        if tag in _LOADED and _LOADED[tag] in values and values.get("rel") not in {"prev", "next", "canonical"}:
            self.loads.add(values[_LOADED[tag]])


def faults(site: Path) -> list[str]:
    """Return broken links and content from other hosts."""
    pages = {path: Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        found += [f"{name} loads {each}" for each in page.loads if urlsplit(each).netloc]
        if name == "404.html":
            continue
        for link in sorted(page.links | page.loads):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or not target.is_relative_to(site):
                found.append(f"{name} links to {link}, which the site lacks")
            elif (
                parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors | {"__skip"}
            ):
                found.append(f"{name} links to {link}, an anchor that the page lacks")
    return found


def without_links_to_sources(page: Path, text: str) -> str:
    """Return a page for the site. Links to existing source files are replaced by their paths."""

    def path_of(link: re.Match[str]) -> str:
        target = (page.parent / link["target"]).resolve()
        if target.is_relative_to(DOCS) or not target.exists():
            return link[0]
        return f"{link['text']} (`{target.relative_to(ROOT).as_posix()}`)"

    return _OUTWARD.sub(path_of, text)


def main() -> int:
    """Build and check the site, and move it into place."""
    shutil.rmtree(WORK, ignore_errors=True)
    shutil.copytree(DOCS, WORK / "docs")  # the builder expects them below its settings
    for page in sorted(DOCS.rglob("*.md")):
        (WORK / "docs" / page.relative_to(DOCS)).write_text(without_links_to_sources(page, page.read_text()))
    settings = WORK / "mkdocs.yml"
    settings.write_text(json.dumps(configuration()))  # JSON is YAML
    done = subprocess.run(
        [str(ROOT / ".cache/docs-venv/bin/zensical"), "build", "--strict", "--config-file", str(settings)],
        cwd=WORK,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.stderr.write(done.stdout + done.stderr.partition("Traceback")[0])
        return 1
    if found := faults(WORK / "site"):
        sys.stderr.write("\n".join([*found, f"{len(found)} faults"]) + "\n")
        return 1
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.copytree(WORK / "site", SITE)
    pages = sum(1 for _ in SITE.rglob("*.html"))
    print(f"{pages} pages in {SITE.relative_to(ROOT)}; `fal up` serves them at /docs/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
