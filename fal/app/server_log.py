"""What uvicorn writes, without what the log of a runner has already."""

from __future__ import annotations

import logging
from http import HTTPStatus

_ACCESS_FIELDS = 5


class ServerFormatter(logging.Formatter):
    """Write a level only if it is not INFO: a line of the log has one, and reads it from the text."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        text = super().format(record)
        return text if record.levelno == logging.INFO else f"{record.levelname}: {text}"


class AccessFormatter(logging.Formatter):
    """Write one line for a request: the caller's address if a proxy told it, what was asked, what was answered."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        fields = record.args
        if not isinstance(fields, tuple) or len(fields) != _ACCESS_FIELDS:
            return super().format(record)
        address, method, path, version, status = fields
        caller = str(address).removesuffix(":0")  # the controller tells no port
        try:
            phrase = HTTPStatus(int(str(status))).phrase
        except ValueError:
            phrase = ""
        return f'{caller or "-"} "{method} {path} HTTP/{version}" {status} {phrase}'.rstrip()


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
