"""What a start loads. Every module delays the return of a controller that was killed."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.controller import running, start

# What is loaded at its first use: a page, a certificate, a token, another database, a tool, a call.
_LATER = (
    "alembic",
    "asyncpg",
    "certifi",
    "cryptography.x509",
    "fal_mcp.acting",
    "fal_server.engines.ray",
    "fal_server.http.dashboard",
    "httpx",
    "jinja2",
    "jwt",
    "mcp",
    "obstore",
    "opentelemetry",
    "ray",
    "sqlalchemy.dialects.postgresql",
)


def _loaded(log: Path) -> set[str]:
    return set(re.findall(r"^import time: +\d+ \| +\d+ \| +(\S+)$", log.read_text(), re.MULTILINE))


def test_start_again_loads_what_it_needs(tmp_path: Path) -> None:
    with running(tmp_path):
        pass
    log = tmp_path / "controller.log"
    log.unlink()
    controller = start(tmp_path, environment={"PYTHONPROFILEIMPORTTIME": "1"})
    try:
        loaded = _loaded(log)
        assert "fal_server.composition.main" in loaded
        assert [name for name in _LATER if name in loaded] == []
        page = controller.call("/ui/login")
        assert page.status == 200
        assert b"<form" in page.body
        assert {"fal_server.http.dashboard", "jinja2"} <= _loaded(log)
    finally:
        controller.stop()
