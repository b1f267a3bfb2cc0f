"""The fuzzer itself: seeds reproduce cases, and a failing controller is detected."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.fuzz.cases import METHODS, ROUTES, Door, case_of
from tests.fuzz.run import Fuzzer
from tests.support.controller import Controller

FAILING = b"HTTP/1.1 500 Internal Server Error\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
HEALTHY = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


def test_a_case_comes_from_its_seed_and_number_alone() -> None:
    for number in range(60):
        assert case_of("7", number, "here", "id:secret") == case_of("7", number, "here", "id:secret")
    assert case_of("7", 0, "here", "id:secret").data != case_of("8", 0, "here", "id:secret").data


def test_the_cases_reach_every_method_and_route() -> None:
    cases = [case_of("7", number, "here", "id:secret") for number in range(6000)]
    assert {case.method.full_name for case in cases if case.method is not None} == {m.full_name for m in METHODS}
    asked = {case.data.split(b" ")[0].decode() for case in cases if case.door is Door.REST}
    assert asked == {method for method, _ in ROUTES}
    assert {case.keyed for case in cases} == {True, False}


@pytest.mark.parametrize(("door", "problem"), [(1, "answered b'HTTP/1.1 500"), (None, "a traceback")])
async def test_what_breaks_is_reported_with_its_case(tmp_path: Path, door: int | None, problem: str) -> None:
    """A fake controller fails by an answer, or only in its log."""
    log = tmp_path / "controller.log"
    log.write_text("")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.read(4096)
        if head.startswith(b"GET /health "):
            writer.write(HEALTHY)
        else:
            log.write_text("Traceback (most recent call last):\n" if door is None else "")
            writer.write(FAILING if door is not None else HEALTHY)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    process: Any = SimpleNamespace(pid=os.getpid(), poll=lambda: None)
    played = Controller(state_dir=tmp_path, process=process, port=port, grpc_port=port, key="id:secret")
    report = await Fuzzer(played, "7").send(1)
    server.close()
    assert any(problem in said for said in report.broken.values()), report.broken
    assert set(report.broken) == {-1 if door is None else door}
