"""Sessions of the dashboard end what they opened, however they end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request

from fal_server.http.dashboard import sessions as module
from fal_server.http.dashboard.sessions import COOKIE, Session, Sessions
from fal_server.live.events import ChangeNotifier
from tests.fakes.platform import FakeClock


class _Authenticator:
    """Knows every key."""

    def __init__(self) -> None:
        self.open_calls = SimpleNamespace(on_end=self._on_end)
        self.end: Callable[[str], None] | None = None

    def _on_end(self, end: Callable[[str], None]) -> None:
        self.end = end

    async def authenticate(self, key_id: str, secret: str) -> None:
        assert (key_id, secret) == ("id", "secret")

    async def holder(self, key_id: str) -> str:
        return key_id


@pytest.fixture
def sessions() -> Sessions:
    authenticator: Any = _Authenticator()
    return Sessions(authenticator, FakeClock(ChangeNotifier()))


def _request(cookie: str) -> Request:
    return Request({"type": "http", "headers": [(b"cookie", f"{COOKIE}={cookie}".encode())]})


async def _begin(sessions: Sessions) -> tuple[str, Session]:
    cookie, _ = await sessions.begin("id:secret")
    found = sessions.find(_request(cookie))
    assert found is not None
    return cookie, found


async def test_at_the_logout(sessions: Sessions) -> None:
    cookie, session = await _begin(sessions)
    _, other = await _begin(sessions)
    sessions.end(_request(cookie))
    assert (session.ended.is_set(), other.ended.is_set()) == (True, False)
    assert sessions.find(_request(cookie)) is None


async def test_by_time(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIFE", timedelta(milliseconds=1))
    _, session = await _begin(sessions)
    async with asyncio.timeout(60):
        await session.ended.wait()


async def test_if_there_are_too_many(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_SESSIONS", 2)
    made = [(await _begin(sessions))[1] for _ in range(3)]
    assert [session.ended.is_set() for session in made] == [True, False, False]
