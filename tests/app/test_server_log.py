"""What uvicorn writes in a runner."""

from __future__ import annotations

import contextlib
import io
import logging
import logging.config
from collections.abc import Generator
from types import SimpleNamespace
from typing import Any

import pytest

from fal.app.server_log import LOGGING, AccessFormatter, ServerFormatter, write_access_lines_directly


def record(level: int, message: str, *fields: object) -> logging.LogRecord:
    return logging.LogRecord("uvicorn", level, "", 0, message, fields, None)


@pytest.mark.parametrize(
    ("level", "line"),
    [(logging.INFO, "it starts"), (logging.WARNING, "WARNING:  it starts"), (logging.ERROR, "ERROR:    it starts")],
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


class Lines(io.StringIO):
    """A runner's standard stream, which takes entries as well as text."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[tuple[str, str]] = []
        self.buffer: Any = SimpleNamespace(write_entry=lambda text, letter: self.entries.append((text, letter)))


@contextlib.contextmanager
def access() -> Generator[tuple[logging.Logger, Lines]]:
    """Configure the access logger like a runner's server, to write into lines.

    This is not a fixture, because pytest adds its own handler to such a logger after the fixtures.
    """
    logger, lines = logging.getLogger("uvicorn.access"), Lines()
    with contextlib.redirect_stdout(lines):
        logging.config.dictConfig(LOGGING)
    write_access_lines_directly()
    try:
        yield logger, lines
    finally:
        vars(logger).pop("info", None)
        for name in ("uvicorn.access", "uvicorn"):
            logging.getLogger(name).handlers.clear()
            logging.getLogger(name).propagate = True


_FIELDS = ("10.1.2.3:0", "POST", "/x", "1.1", 200)
_LINE = '10.1.2.3 "POST /x HTTP/1.1" 200 OK\n'


def write(logger: logging.Logger) -> None:
    """Log a request as uvicorn does."""
    logger.info('%s - "%s %s HTTP/%s" %d', *_FIELDS)


def test_an_access_line_is_an_entry_without_a_record() -> None:
    with access() as (logger, lines):
        write(logger)
        assert (lines.entries, lines.getvalue()) == ([(_LINE, "I")], "")


def test_a_filter_of_the_app_sees_access_records() -> None:
    with access() as (logger, lines):
        seen: list[str] = []

        def drop(record: logging.LogRecord) -> bool:
            seen.append(record.getMessage())
            return False

        for filtered in (logger, logger.handlers[0]):
            filtered.addFilter(drop)
            write(logger)
            filtered.removeFilter(drop)
        assert seen == ['10.1.2.3:0 - "POST /x HTTP/1.1" 200'] * 2
        assert (lines.entries, lines.getvalue()) == ([], "")


def test_a_handler_of_the_app_gets_access_records() -> None:
    with access() as (logger, lines):
        own = io.StringIO()
        logger.addHandler(logging.StreamHandler(own))
        write(logger)
        assert own.getvalue() == '10.1.2.3:0 - "POST /x HTTP/1.1" 200\n'
        assert (lines.entries, lines.getvalue()) == ([], _LINE)


def test_a_formatter_of_the_app_writes_access_lines() -> None:
    with access() as (logger, lines):
        logger.handlers[0].setFormatter(logging.Formatter("own: %(message)s"))
        write(logger)
        assert lines.getvalue() == 'own: 10.1.2.3:0 - "POST /x HTTP/1.1" 200\n'


def test_a_library_that_watches_all_records_sees_access_records(monkeypatch: pytest.MonkeyPatch) -> None:
    with access() as (logger, _):
        seen: list[str] = []
        monkeypatch.setattr(logging.Logger, "callHandlers", lambda _logger, record: seen.append(record.getMessage()))
        write(logger)
        assert seen == ['10.1.2.3:0 - "POST /x HTTP/1.1" 200']


def test_no_access_line_is_written_when_the_app_turns_them_off() -> None:
    with access() as (logger, lines):
        logger.setLevel(logging.WARNING)
        write(logger)
        logger.setLevel(logging.INFO)
        logger.disabled = True
        write(logger)
        logger.disabled = False
        assert (lines.entries, lines.getvalue()) == ([], "")


def test_outside_of_a_runner_access_lines_are_text() -> None:
    with access() as (logger, lines):
        del lines.buffer
        write(logger)
        assert lines.getvalue() == _LINE
