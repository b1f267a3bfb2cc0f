"""An app's response on a page. It is text, and the images, audio and video that it links to."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from fal_server.core.json_reader import read_json
from fal_server.core.queue import Answer

_KINDS = {
    "image": ("png", "jpg", "jpeg", "gif", "webp", "avif", "svg"),
    "audio": ("mp3", "wav", "ogg", "flac", "m4a", "opus"),
    "video": ("mp4", "webm", "mov", "mkv"),
}
_MOST_TEXT = 200_000
_MOST_MEDIA = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownAnswer:
    """A response.

    Attributes:
        media: (image, audio or video; address) for each link.
        cut: whether the text is truncated.
    """

    status: int
    kind: str
    text: str
    media: tuple[tuple[str, str], ...]
    cut: bool


def media_of(answer: Answer) -> ShownAnswer:
    """Return a response in the form for a page."""
    kind = (answer.header("content-type") or "").partition(";")[0].strip().lower()
    family = kind.partition("/")[0]
    if family in _KINDS:
        address = f"data:{kind};base64,{base64.b64encode(answer.body).decode()}"
        return ShownAnswer(status=answer.status, kind=kind, text="", media=((family, address),), cut=False)
    text = answer.body.decode(errors="replace")
    found: list[tuple[str, str]] = []
    if kind.endswith("json"):
        try:
            value = read_json(answer.body)
        except ValueError:
            value = None
        else:
            text = json.dumps(value, indent=2, ensure_ascii=False)
            found = list(dict.fromkeys(_named(value)))[:_MOST_MEDIA]
    return ShownAnswer(
        status=answer.status, kind=kind, text=text[:_MOST_TEXT], media=tuple(found), cut=len(text) > _MOST_TEXT
    )


def _named(value: object, kind: str = "") -> Iterator[tuple[str, str]]:
    match value:
        case dict():
            said = value.get("content_type")
            for each in value.values():
                yield from _named(each, said if isinstance(said, str) else "")
        case list():
            for each in value:
                yield from _named(each)
        case str() if value.startswith(("http://", "https://", "data:")):
            ending = _ending(value) if value.startswith("http") else ""
            family = (kind or value[len("data:") :] if value.startswith("data:") else kind).partition("/")[0]
            found = family if family in _KINDS else next((name for name, ends in _KINDS.items() if ending in ends), "")
            if found:
                yield found, value
        case _:
            pass


def _ending(url: str) -> str:
    """Return the ending of a file name in an answer's URL. It is "" if the URL has none, or is malformed."""
    try:
        return urlsplit(url).path.rpartition(".")[2].lower()
    except ValueError:
        return ""
