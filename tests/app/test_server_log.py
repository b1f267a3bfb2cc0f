"""What uvicorn writes in a runner."""

from __future__ import annotations

import logging

import pytest

from fal.app.server_log import AccessFormatter, ServerFormatter


def record(level: int, message: str, *fields: object) -> logging.LogRecord:
    return logging.LogRecord("uvicorn", level, "", 0, message, fields, None)


@pytest.mark.parametrize(
    ("level", "line"),
    [(logging.INFO, "it starts"), (logging.WARNING, "WARNING: it starts"), (logging.ERROR, "ERROR: it starts")],
)
def test_only_what_is_not_info_names_its_level(level: int, line: str) -> None:
    assert ServerFormatter().format(record(level, "it %s", "starts")) == line


@pytest.mark.parametrize(
    ("address", "status", "line"),
    [
        ("10.1.2.3:0", 200, '10.1.2.3 "POST /x?y=%d HTTP/1.1" 200 OK'),
        ("10.1.2.3:4010", 404, '10.1.2.3:4010 "POST /x?y=%d HTTP/1.1" 404 Not Found'),
        ("", 299, '- "POST /x?y=%d HTTP/1.1" 299'),
    ],
)
def test_an_access_line_names_the_caller_without_an_invented_port(address: str, status: int, line: str) -> None:
    fields = (address, "POST", "/x?y=%d", "1.1", status)
    assert AccessFormatter().format(record(logging.INFO, '%s - "%s %s HTTP/%s" %d', *fields)) == line


def test_other_records_pass() -> None:
    assert AccessFormatter().format(record(logging.INFO, "closed")) == "closed"
