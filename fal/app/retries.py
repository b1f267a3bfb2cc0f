"""Retry settings of an app's queued requests, by kind of failure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

CONDITIONS = ("timeout", "server_error", "connection_error")


@dataclass(frozen=True, slots=True)
class RetryConfig:
    """Retries of a queued request by kind of failure. None means the platform's default.

    Attributes:
        timeout: retries after a request that timed out.
        server_error: retries after a response with a 5xx status.
        connection_error: retries after the connection to the runner failed or broke.
    """

    timeout: int | None = None
    server_error: int | None = None
    connection_error: int | None = None

    def to_dict(self) -> dict[str, dict[str, int]]:
        """Return the config as a mapping, in the form of pyproject.toml."""
        given = {name: getattr(self, name) for name in CONDITIONS}
        return {name: {"retries": max(int(count), 0)} for name, count in given.items() if count is not None}


def retry_config_json(config: RetryConfig | Mapping[str, object]) -> str:
    """Return a retry config as the JSON that a deploy sends.

    Raises:
        ValueError: there is no condition, one is unknown, or a count is not a whole number of at least 0.
    """
    return json.dumps(checked_retry_config(config), sort_keys=True)


def checked_retry_config(config: object) -> dict[str, dict[str, int]]:
    """Check a retry config, and return it as a mapping.

    Raises:
        ValueError: there is no condition, one is unknown, or a count is not a whole number of at least 0.
    """
    given = config.to_dict() if isinstance(config, RetryConfig) else config
    if not isinstance(given, Mapping) or not given:
        raise ValueError('retry_config is empty or no mapping: write it as {"timeout": {"retries": 2}}')
    checked: dict[str, dict[str, int]] = {}
    for condition, entry in given.items():
        if condition not in CONDITIONS:
            raise ValueError(f"retry_config has {condition!r}: the conditions are {', '.join(CONDITIONS)}")
        retries = entry.get("retries") if isinstance(entry, Mapping) and set(entry) == {"retries"} else None
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise ValueError(f'retry_config[{condition!r}] is {entry!r}: write it as {{"retries": 2}}')
        checked[condition] = {"retries": retries}
    return checked
