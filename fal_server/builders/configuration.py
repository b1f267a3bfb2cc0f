"""Checks the configuration of a `virtualenv` environment before anything is started."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fal_server.core.faults import InvalidArgument
from fal_server.core.revisions import Json

FIELD = "environments"
_MOST_REQUIREMENTS = 2_000
_LONGEST_REQUIREMENT = 4_000
_VERSION = re.compile(r"3\.[0-9]{1,2}(\.[0-9]{1,3})?")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?=\s*(?:$|[\[<>=!~;@(#]))")
_LOCAL = re.compile(r"(?:^|@\s*)(?:file:|[./~])", re.IGNORECASE)
_WEB = re.compile(r"https?://\S+", re.IGNORECASE)
_WEB_REQUIREMENT = re.compile(r"(?:git\+)?https?://\S+", re.IGNORECASE)
# These options say where requirements are found. Other options of an installer name files of the controller's machine
# (-r, -c, -e) or change how the installer works.
_URL_OPTIONS = {
    "-i": "--index-url",
    "--index-url": "--index-url",
    "--extra-index-url": "--extra-index-url",
    "-f": "--find-links",
    "--find-links": "--find-links",
}
_PACKAGE_OPTIONS = {"--no-binary", "--only-binary"}
_PACKAGES = re.compile(r":all:|:none:|[A-Za-z0-9._,-]+")
# Every environment has these, because a runner needs them to load an app.
ALWAYS = ("cloudpickle", "grpcio")
# Ignored keys: the installer is always uv, and tags are for other builders.
_IGNORED = {"resolver", "tags"}


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualenvConfiguration:
    """A checked configuration.

    Attributes:
        python_version: `3.11`, or with a patch number `3.11.7`.
        layers: for each install, in order, the lines of a requirements file; at least one.
    """

    python_version: str
    layers: tuple[tuple[str, ...], ...] = field(repr=False)  # its URLs may have passwords


def parse(configuration: Mapping[str, Json]) -> VirtualenvConfiguration:
    """Check a configuration as a client sent it.

    cloudpickle and grpcio are added unless a requirement names them: the worker loads the app with the former, and an
        app
    that the published client pickled refers to the latter.

    Raises:
        InvalidArgument: it is wrong, or asks for something unsupported (field `environments`).
    """
    given = {key: value for key, value in configuration.items() if value is not None and key not in _IGNORED}
    python_version = given.pop("python_version", f"{sys.version_info.major}.{sys.version_info.minor}")
    if not isinstance(python_version, str) or not _VERSION.fullmatch(python_version):
        raise InvalidArgument(FIELD, f"python_version {_shown(python_version)} is not a version: write it as in '3.11'")
    layers = [_lines(layer) for layer in _layers(given.pop("requirements", []))] or [[]]
    indexes = given.pop("extra_index_urls", [])
    if given:
        keys = ", ".join(sorted(_shown(key) for key in given))
        raise InvalidArgument(
            FIELD, f"the environment's configuration has keys that virtualenv does not know: {keys}; remove them"
        )
    options = [_option("--extra-index-url", url) for url in _strings(indexes, "extra_index_urls")]
    named = {_name(line) for layer in layers for line in layer}
    layers[-1] += [package for package in ALWAYS if package not in named]
    return VirtualenvConfiguration(
        python_version=python_version, layers=tuple((*options, *layer) for layer in layers if layer)
    )


def _layers(requirements: Json) -> list[list[str]]:
    if isinstance(requirements, Sequence) and not isinstance(requirements, str):
        if all(isinstance(item, str) for item in requirements):
            layers = [_strings(requirements, "requirements")]
        else:
            layers = [_strings(layer, "requirements") for layer in requirements]
        if sum(map(len, layers)) > _MOST_REQUIREMENTS:
            raise InvalidArgument(
                FIELD, f"requirements has more than {_MOST_REQUIREMENTS} entries: keep to what the app imports"
            )
        return layers
    raise InvalidArgument(
        FIELD, "requirements is not a list: write ['numpy', ...], or a list of such lists to install in turn"
    )


def _strings(value: Json, name: str) -> list[str]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        strings = [item.strip() for item in value if isinstance(item, str)]
        if len(strings) == len(value):
            return strings
    raise InvalidArgument(
        FIELD, f"{name} contains something other than strings: write a list of strings, or a list of such lists"
    )


def _lines(layer: list[str]) -> list[str]:
    """Return a layer as lines of a requirements file. The value of an option may be the next entry."""
    lines: list[str] = []
    entries = iter([entry for entry in layer if entry and not entry.startswith("#")])
    for entry in entries:
        if not entry.startswith("-"):
            lines.append(_requirement(entry))
            continue
        name, separator, value = entry.partition("=") if entry.startswith("--") else (entry, "", "")
        if not separator:
            name, _, value = entry.partition(" ")
        lines.append(_option(name, value.strip() or next(entries, "")))
    return lines


def _requirement(entry: str) -> str:
    _check_plain(entry)
    if _LOCAL.search(entry):
        raise InvalidArgument(
            FIELD,
            f"requirement {_shown(entry)} is a path on your machine: give a name, or a URL that can be reached here",
        )
    if not _NAME.match(entry) and not _WEB_REQUIREMENT.fullmatch(entry.partition(" ")[0]):
        raise InvalidArgument(FIELD, f"requirement {_shown(entry)} is not a requirement: write it as in 'numpy>=2'")
    return entry


def _option(name: str, value: str) -> str:
    _check_plain(value)
    if name in _URL_OPTIONS and _WEB.fullmatch(value):
        return f"{_URL_OPTIONS[name]} {value}"
    if name in _PACKAGE_OPTIONS and _PACKAGES.fullmatch(value):
        return f"{name} {value}"
    known = ", ".join(sorted({*_URL_OPTIONS.values(), *_PACKAGE_OPTIONS}))
    raise InvalidArgument(
        FIELD,
        f"option {_shown(name)} is not allowed in requirements: allowed are {known}, with an http(s) URL or packages",
    )


def _check_plain(entry: str) -> None:
    """Reject an entry that would start another requirements line or be expanded."""
    if len(entry) > _LONGEST_REQUIREMENT:
        raise InvalidArgument(FIELD, f"requirement {_shown(entry)} is longer than {_LONGEST_REQUIREMENT} characters")
    if not entry.isprintable() or entry.endswith("\\"):
        raise InvalidArgument(
            FIELD,
            f"requirement {_shown(entry)} contains a line break or control character: write one entry per requirement",
        )
    if "${" in entry:
        raise InvalidArgument(FIELD, f"requirement {_shown(entry)} names a variable: variables are not expanded here")


def _name(line: str) -> str:
    found = _NAME.match(line)
    return re.sub(r"[-_.]+", "-", found.group()).lower() if found else ""


def _shown(value: object) -> str:
    """Return a user's text for a message: shortened, and without possible passwords."""
    text = repr(value)
    text = re.sub(r"://\S*@", "://****@", text)
    return text if len(text) <= 80 else text[:77] + "..."
