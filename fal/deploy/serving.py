"""The ways to serve an app in its environment, best first. Later ones restrict its requirements less."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from fal.deploy.errors import DeployError
from fal.deploy.requirements import BOUND_TOGETHER, Requirements, flat, package_name, with_requirements

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

REALTIME = ("websockets", "msgpack")
# The installed pydantic checks the app's models, so another major version comes last.
_PYDANTIC = "pydantic>=2,<3"
_MINIMAL = ("uvicorn",)
# With older versions, importing FastAPI or the serving modules fails in Python 3.11.
_FIRST = {"pydantic": "1.10", "fastapi": "0.52"}
# uv's messages for an unreachable package; another version would be just as unreachable.
_UNREACHABLE = re.compile(r"failed to (fetch|download)\b|error sending request", re.IGNORECASE)
# uv's message for a package's dependencies. Several ranges are on separate lines.
_DEPENDS = re.compile(r"(?P<who>\S+) depends? on (?:one of:\s+(?P<some>\S+(?:\n[ \t]+\S+(?=\n|$))*)|(?P<one>\S+))")
_REQUIRES = re.compile(r"\byou require (?P<what>[^\s,]\S*)")
_NO_ROOM = "FastAPI and its requirements exclude one another"
_OTHER_VERSIONS = "the FastAPI and pydantic that are installed here and its requirements exclude one another"


@dataclass(frozen=True, slots=True, kw_only=True)
class WayToServe:
    """One way to serve an app.

    Attributes:
        requirements: the app's requirements and the added ones.
        added: the added requirements.
        minimal: whether the minimal server serves it, because there is no FastAPI.
        reason: why it is not served as usual; "" if it is.
        cause: the requirements that the failed build before this way named; "" if none.
    """

    requirements: Requirements
    added: tuple[str, ...]
    minimal: bool = False
    reason: str = ""
    cause: str = field(default="", compare=False)

    def why(self) -> str:
        """Return why it is not served as usual. It says which requirements cause it."""
        return f"{self.reason} ({self.cause})" if self.cause else self.reason

    def is_blamed(self, lines: Sequence[str]) -> bool:
        """Return whether a failed build's log blames an added requirement."""
        words = "\n".join(lines)
        said = words[max(0, words.lower().find("error:")) :]
        if _UNREACHABLE.search(said):
            return False
        return any(_stands_in(package_name(one), said) for one in self.added)

    def conflict_in(self, lines: Sequence[str]) -> str:
        """Return the app's requirements that conflict with added ones; "" if none. A failed build's log names them."""
        log = "\n".join(lines)
        added = {package_name(one) for one in self.added}
        for found in _DEPENDS.finditer(log):
            asked = [text.rstrip(",") for text in (found["some"] or found["one"]).split()]
            if package_name(asked[0]) in added and package_name(found["who"]) not in added:
                return f"{found['who']} depends on {' or '.join(asked)}"
        required = (found["what"].rstrip(",.") for found in _REQUIRES.finditer(log))
        own = next((one for one in required if package_name(one) not in added), "")
        return f"it requires {own}" if own else ""

    def named_in(self, lines: Sequence[str]) -> list[str]:
        """Return the added requirements that a log names, in their requested form."""
        return [one for one in self.added if _stands_in(one, "\n".join(lines))]


def ways_to_serve(given: object, *, realtime: bool, sources: Iterable[str]) -> tuple[WayToServe, ...]:
    """Return the ways to serve an app, best first.

    Args:
        given: the app's requirements.
        realtime: whether it has WebSockets, which the minimal server does not support.
        sources: the text of the app's modules, whose imports must be available.

    Raises:
        DeployError: FastAPI or pydantic is not installed here.
    """
    texts = list(sources)
    usual = serving_requirements(realtime=realtime)
    server = [one for one in usual if package_name(one) not in BOUND_TOGETHER]
    ways = [
        _way(given, usual),
        _way(given, ["fastapi", _PYDANTIC, *server], reason=_OTHER_VERSIONS),
        _way(given, ["fastapi", "pydantic", *server], reason=_OTHER_VERSIONS),
    ]
    if not realtime and not any(_imports(text, "fastapi", "starlette") for text in texts):
        models = [_PYDANTIC] if any(_imports(text, "pydantic", "fal.toolkit") for text in texts) else []
        minimal = _way(given, [*_MINIMAL, *models], minimal=True, reason=_NO_ROOM)
        too_old = _too_old(given)
        if too_old:
            return (replace(minimal, reason=f"it asks for {too_old}, which is too old to serve it with FastAPI"),)
        ways.insert(2, minimal)
    return tuple(way for number, way in enumerate(ways) if all(way.added != each.added for each in ways[:number]))


def serving_requirements(*, realtime: bool) -> list[str]:
    """Return the packages that serve an app in its runner. They do so only if its own requirements allow them.

    FastAPI and pydantic are pinned to the installed versions, because these described the app.

    Raises:
        DeployError: they are not installed here.
    """
    try:
        pinned = [f"{name}=={_version(name)}" for name in ("fastapi", "pydantic")]
    except PackageNotFoundError as error:
        raise DeployError(
            f"{error.name} is not installed, which writing and deploying apps needs: pip install 'fal-grpc[app]'"
        ) from error
    return [*pinned, "uvicorn", "httptools", "uvloop", *(REALTIME if realtime else ())]


@functools.cache
def _version(name: str) -> str:
    """Return a package's version, cached. Finding it takes milliseconds, and `fal dev` asks at each save."""
    return version(name)


def _way(given: object, added: list[str], *, minimal: bool = False, reason: str = "") -> WayToServe:
    requirements = with_requirements(given, added)
    asked, every = flat(given), flat(requirements)
    return WayToServe(
        requirements=requirements,
        added=tuple(one for one in every[len(asked) :] if one not in asked),
        minimal=minimal,
        reason=reason,
    )


def _too_old(given: object) -> str:
    """Return a requirement that only allows outdated versions; "" if none."""
    from packaging.requirements import InvalidRequirement, Requirement

    for item in flat(given):
        first = _FIRST.get(package_name(item))
        if first is None:
            continue
        try:
            asked = Requirement(item)
        except InvalidRequirement:
            continue  # the build refuses it, with its own message
        if asked.url is None and not _admits(asked.specifier, first):
            return item
    return ""


def _admits(asked: SpecifierSet, first: str) -> bool:
    """Return whether a version that is `first` or later is allowed."""
    from packaging.version import Version

    named = [each.version.removesuffix(".*") for each in asked]
    # Every allowed range begins or ends at a named version, so it contains one of these.
    tried = [Version(text) for text in (first, "9999", *named, *(f"{each}.0.0.1" for each in named if "+" not in each))]
    return any(asked.contains(each, prereleases=True) for each in tried if each >= Version(first))


def _imports(source: str, *names: str) -> bool:
    return any(re.search(rf"^\s*(?:import|from)\s+{re.escape(name)}\b", source, re.MULTILINE) for name in names)


def _stands_in(name: str, text: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) is not None
