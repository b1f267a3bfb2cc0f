"""Reads the metrics page of an app, as Prometheus does. One bad line refuses the whole page."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fal_server.core.exposition import Metric

MOST_BYTES = 1024 * 1024
"""The largest page."""
MOST_SERIES = 2000
"""The most series of a page."""
_MOST_LINES = 10_000
_MOST_LABELS = 64
_MOST_DIGITS = 64
# None of them backtracks, because apps write what they read.
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*+")
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*+)[ \t]*+(?:\{(.*)\})?+[ \t]*+([^ \t{}]++)(?:[ \t]++(-?[0-9]{1,20}))?")
_LABEL = re.compile(r'[ \t]*+([a-zA-Z_][a-zA-Z0-9_]*+)[ \t]*+=[ \t]*+"((?:[^"\\]|\\["\\n])*+)"[ \t]*+')
_VALUE = re.compile(r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf|nan)", re.IGNORECASE)
_ESCAPE = re.compile(r"\\(.)")
_KINDS = {"counter", "gauge", "histogram", "summary", "untyped"}
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}
_OURS = "fal_"
_EXPORTED = "exported_"


class BadPage(Exception):
    """A page that cannot be read, and why, in a few words."""


@dataclass(slots=True)
class _Family:
    kind: str = "untyped"
    help: str = ""
    samples: list[tuple[str, Mapping[str, str], str]] = field(default_factory=list[tuple[str, Mapping[str, str], str]])


def read_page(page: bytes, labels: Mapping[str, str]) -> list[Metric]:
    """Return the metrics of a page in the text format 0.0.4. Each sample gets further labels.

    The names of our own metrics begin with `fal_`, so an app's such name gets `exported_` in front, as does a label of
    the app that has the name of a further one. Timestamps are left out, and of two samples of one series the first is
    kept.

    Raises:
        BadPage: a line is not in that format, or the page is too large.
    """
    if len(page) > MOST_BYTES:
        raise BadPage("too_large")
    try:
        text = page.decode()
    except UnicodeDecodeError:
        raise BadPage("not_utf8") from None
    if text.count("\n") > _MOST_LINES:
        raise BadPage("too_many_lines")
    families: dict[str, _Family] = {}
    seen: set[tuple[str, frozenset[tuple[str, str]]]] = set()
    for line in text.split("\n"):
        stripped = line.strip(" \t\r")
        if not stripped:
            continue
        if stripped.startswith("#"):
            _comment(stripped, families)
            continue
        name, own, value = _sample(stripped, labels)
        series = (name, frozenset(own.items()))
        if series in seen:
            continue
        if len(seen) >= MOST_SERIES:
            raise BadPage("too_many_series")
        seen.add(series)
        family, suffix = _family(name, families)
        families.setdefault(family, _Family()).samples.append((suffix, {**labels, **own}, value))
    return [
        Metric(name=name, kind=family.kind, help=family.help, samples=[*family.samples])
        for name, family in families.items()
        if family.samples
    ]


def merged(pages: Iterable[Iterable[Metric]]) -> list[Metric]:
    """Return the metrics of several pages, each name once. One that has two kinds is `untyped`."""
    found: dict[str, Metric] = {}
    for page in pages:
        for metric in page:
            known = found.get(metric.name)
            if known is None:
                found[metric.name] = metric
                continue
            if known.kind != metric.kind:
                known.kind = "untyped"
            known.samples += metric.samples
    return [found[name] for name in sorted(found)]


def _comment(line: str, families: dict[str, _Family]) -> None:
    """Read `# HELP name text` and `# TYPE name kind`. Other comments say nothing."""
    parts = line[1:].split(maxsplit=2)
    if len(parts) < 2 or parts[0] not in ("HELP", "TYPE"):
        return
    word, name = parts[:2]
    rest = parts[2] if len(parts) == 3 else ""
    if not _NAME.fullmatch(name):
        raise BadPage("malformed")
    name = _exported(name)
    if word == "TYPE":
        if rest not in _KINDS:
            raise BadPage("malformed")
        families.setdefault(name, _Family()).kind = rest
    else:
        families.setdefault(name, _Family()).help = _plain(rest)
    if len(families) > MOST_SERIES:
        raise BadPage("too_many_series")


def _sample(line: str, labels: Mapping[str, str]) -> tuple[str, dict[str, str], str]:
    """Return a sample's name, its own labels and its value."""
    found = _SAMPLE.fullmatch(line)
    if found is None or not _is_number(found[3]):
        raise BadPage("malformed")
    own: dict[str, str] = {}
    rest, at = found[2] or "", 0
    while rest[at:].strip(" \t"):
        label = _LABEL.match(rest, at)
        if label is None or len(own) >= _MOST_LABELS:
            raise BadPage("malformed")
        name = f"{_EXPORTED}{label[1]}" if label[1] in labels else label[1]
        at = label.end()
        if name in own or (at < len(rest) and rest[at] != ","):
            raise BadPage("malformed")
        own[name] = _plain(label[2])
        at += 1
    return _exported(found[1]), own, found[3]


def _is_number(text: str) -> bool:
    """Return whether Prometheus reads it as a number, too. It refuses those beyond the largest one."""
    if len(text) > _MOST_DIGITS or not _VALUE.fullmatch(text):
        return False
    return text.lower().lstrip("+-") == "inf" or abs(float(text)) != math.inf


def _family(name: str, families: Mapping[str, _Family]) -> tuple[str, str]:
    """Return the metric that a sample belongs to, and its suffix."""
    for kind, suffixes in _SUFFIXES.items():
        for suffix in suffixes:
            base = name.removesuffix(suffix)
            if base != name and base in families and families[base].kind == kind:
                return base, suffix
    return name, ""


def _exported(name: str) -> str:
    return f"{_EXPORTED}{name}" if name.startswith(_OURS) else name


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda found: "\n" if found[1] == "n" else found[1], text)
