"""Every test here runs on both event loops: the standard one, and uvloop, which the controller uses."""

from __future__ import annotations

import asyncio

import pytest
import uvloop


@pytest.fixture(params=["asyncio", "uvloop"])
def event_loop_policy(request):
    """The policy that pytest-asyncio makes a test's loop by."""
    return uvloop.EventLoopPolicy() if request.param == "uvloop" else asyncio.DefaultEventLoopPolicy()
