"""Formats uvicorn's log lines without what a runner's log already contains."""

from __future__ import annotations

import logging
from functools import lru_cache
from http import HTTPStatus
from typing import TextIO

_ACCESS_FIELDS = 5
_SHORT_PATH = 256
_LOGGING_FILE = logging.info.__code__.co_filename
_PHRASES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


class ServerFormatter(logging.Formatter):
    """Writes the level unless it is INFO. The runner's log reads it from the text."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for a record."""
        text = super().format(record)
        # The runner's log knows uvicorn's form: it reads the level and drops the word.
        return text if record.levelno == logging.INFO else f"{record.levelname + ':':<10}{text}"


class AccessFormatter(logging.Formatter):
    """Writes one line for a request. It has the caller's address if a proxy sent it, the request, and the status."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for a record."""
        fields = record.args
        if not isinstance(fields, tuple) or len(fields) != _ACCESS_FIELDS:
            return super().format(record)
        return _access_line(*fields).removesuffix("\n")


def _access_line(address: object, method: object, path: object, version: object, status: object) -> str:
    caller = str(address).removesuffix(":0")  # the controller sends no port
    answer = _PHRASES.get(int(str(status)), str(status))
    return f'{caller or "-"} "{method} {path} HTTP/{version}" {answer}\n'


# Most lines of a caller are the same.
_known_access_line = lru_cache(maxsize=256)(_access_line)


def write_access_lines_directly() -> None:
    """Write uvicorn's access lines to their stream without a log record. A record would cost more than the rest.

    If the app changes anything about that logger or its handler, records are created as usual. Call it once `LOGGING`
    has configured the logger.
    """
    logger = logging.getLogger("uvicorn.access")
    if isinstance(vars(logger).get("info"), _DirectLines) or len(logger.handlers) != 1:
        return
    handler = logger.handlers[0]
    if isinstance(handler, logging.StreamHandler):
        vars(logger)["info"] = _DirectLines(logger, handler)


class _DirectLines:
    """Replaces the method `info` of the access logger."""

    def __init__(self, logger: logging.Logger, handler: logging.StreamHandler[TextIO]) -> None:
        self._logger = logger
        self._handler = handler
        self._handlers = [handler]
        self._formatter = handler.formatter

    def __call__(self, message: str, *fields: object, **options: object) -> None:
        if not self._as_configured() or len(fields) != _ACCESS_FIELDS or options:
            logging.Logger.info(self._logger, message, *fields, **options)  # type: ignore[arg-type]
            return
        if not self._logger.isEnabledFor(logging.INFO):
            return
        stream = self._handler.stream
        path = fields[2]
        is_short = isinstance(path, str) and len(path) <= _SHORT_PATH  # so that few bytes are kept
        line = (_known_access_line if is_short else _access_line)(*fields)
        try:
            # In a runner, the stream turns it into a log entry with a level, as it does with a record.
            write_entry = getattr(getattr(stream, "buffer", None), "write_entry", None)
            if write_entry is not None:
                write_entry(line, "I")
            else:
                stream.write(line)
                stream.flush()
        except Exception:  # noqa: BLE001 - as logging does: a line that cannot be written fails no request
            self._handler.handleError(self._record(message, fields))

    def _as_configured(self) -> bool:
        logger, handler = self._logger, self._handler
        return (
            logger.handlers == self._handlers
            and not logger.filters
            and not logger.propagate
            and not handler.filters
            and handler.level == logging.NOTSET
            and handler.formatter is self._formatter
            and logging.getLogRecordFactory() is logging.LogRecord
            # otherwise a library watches all records
            and logging.Logger.callHandlers.__code__.co_filename == _LOGGING_FILE
        )

    def _record(self, message: str, fields: tuple[object, ...]) -> logging.LogRecord:
        return self._logger.makeRecord(self._logger.name, logging.INFO, "", 0, message, fields, None)


LOGGING: dict[str, object] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"server": {"()": ServerFormatter}, "access": {"()": AccessFormatter}},
    "handlers": {
        "server": {"class": "logging.StreamHandler", "formatter": "server", "stream": "ext://sys.stderr"},
        "access": {"class": "logging.StreamHandler", "formatter": "access", "stream": "ext://sys.stdout"},
    },
    "loggers": {
        "uvicorn": {"handlers": ["server"], "level": "INFO", "propagate": False},
        "uvicorn.error": {"level": "INFO"},
        "uvicorn.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
    },
}
