"""An item that fails unexpectedly is set aside. Each failure sets it aside for longer, until it succeeds."""

from __future__ import annotations

from datetime import timedelta

from fal_server.aio.set_aside import SetAside
from tests.fakes.domain import at


def test_an_item_that_fails_is_left_alone_for_longer_each_time() -> None:
    now = at(0)
    aside = SetAside(lambda: now)
    assert "x" not in aside
    first = aside.add("x")
    assert 0 < first <= 1
    assert "x" in aside
    assert "y" not in aside
    now += timedelta(seconds=first)
    assert "x" not in aside
    assert 1 <= aside.add("x") <= 2
    aside.remove("x")
    assert "x" not in aside
    assert aside.add("x") <= 1
