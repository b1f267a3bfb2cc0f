"""Parses the arguments of `fal api`: `key=text`, `key:=JSON`, `key=@FILE`, nested as `a[b]=c`."""

from __future__ import annotations

import base64
import json
import mimetypes
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fal_cli.exit_codes import CommandError, ExitCode

if TYPE_CHECKING:
    from fal.api import JSON

_FIELD = re.compile(r"(?P<name>[^=:\[\]]+)(?P<inner>(?:\[[^\[\]=]*\])*)(?P<json>:?)=(?P<value>.*)", re.DOTALL)
_INNER = re.compile(r"\[([^\[\]]*)\]")


def parse_fields(words: list[str]) -> dict[str, JSON]:
    """Return the object that the arguments describe.

    `a[b]=c` is {"a": {"b": "c"}}, `a[]=c` adds to a list. `:=` takes JSON, for numbers, booleans and lists. A value
    that begins with @ names a file, `@-` standard input; its text is used, or a data URI if it is not text.

    Raises:
        CommandError: an argument is malformed, two contradict each other, or a file cannot be read.
    """
    document: dict[str, JSON] = {}
    for word in words:
        found = _FIELD.fullmatch(word)
        if found is None:
            raise _wrong(f"'{word}' is not an argument: write key=text, key:=JSON, or key=@FILE")
        keys = [found["name"], *_INNER.findall(found["inner"])]
        _put(document, keys, _value(found["value"], as_json=bool(found["json"]), word=word), word)
    return document


def _value(text: str, *, as_json: bool, word: str) -> JSON:
    if text.startswith("@"):
        content = _content(text[1:], word)
        if not as_json:
            return _text(content, text[1:])
        text = content.decode("utf-8", "replace")
    if not as_json:
        return text
    try:
        value: JSON = json.loads(text)
    except ValueError as error:
        raise _wrong(f"'{word}': the value after := is not JSON ({error}); plain text goes after =") from None
    return value


def _content(path: str, word: str) -> bytes:
    if not path:
        raise _wrong(f"'{word}' names no file after @; a text that begins with @ is written key:='\"@...\"'")
    if path == "-":
        return sys.stdin.buffer.read()
    return Path(path).read_bytes()


def _text(content: bytes, path: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
        return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _put(document: dict[str, JSON], keys: list[str], value: JSON, word: str) -> None:
    """Store a value at its path, and create the containers around it."""
    place: JSON = document
    for index, key in enumerate(keys):
        last = index + 1 == len(keys)
        deeper: JSON = value if last else [] if keys[index + 1] == "" else {}
        if isinstance(place, list) and key == "":
            place.append(deeper)
            place = deeper
        elif isinstance(place, dict) and key != "":
            if last and key in place:
                raise _wrong(f"'{word}' repeats an earlier argument")
            place = place.setdefault(key, deeper)
        else:
            raise _wrong(f"'{word}' contradicts an earlier argument: is this a list, an object or a text?")


def _wrong(message: str) -> CommandError:
    return CommandError(message, ExitCode.USAGE)
