"""Parses JSON from other programs."""

from __future__ import annotations

import json
import math
import re
from typing import NoReturn

# A document that matches neither has no lone surrogate and no number beyond a double, so it skips the slow checks.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_LARGE_NUMBER = re.compile(r"\d{300}|\d[eE]\+?\d{3}")


def read_json(data: bytes | str) -> object:
    """Return the value of a JSON document with UTF-8 texts. All its numbers fit a double.

    Raises:
        ValueError: it is not JSON (RFC 8259), is nested too deeply, or contains anything else. It raises no other
            error, because readers of foreign data would miss it.
    """
    text = data.decode("utf-8-sig") if isinstance(data, bytes) else data.encode().decode()
    try:
        if _LARGE_NUMBER.search(text) is None:
            value: object = json.loads(text, parse_constant=_refused)
        else:
            value = json.loads(text, parse_constant=_refused, parse_float=_double, parse_int=_integer)
        if _SURROGATE.search(text) is not None:
            json.dumps(value, ensure_ascii=False).encode()  # fails for a lone surrogate
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def _refused(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def _double(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _integer(text: str) -> int:
    _double(text)
    return int(text)
