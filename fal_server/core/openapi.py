"""Looks up paths in an app's OpenAPI description, which its deployer sent."""

from __future__ import annotations

from collections.abc import Mapping

from fal_server.core.revisions import Json


def takes_post(metadata: Mapping[str, Json], path: str) -> bool | None:
    """Return whether an app answers POST at a path. None if it has no description.

    Args:
        metadata: the revision's metadata.
        path: without the query; a path parameter in braces matches any one segment.
    """
    description = metadata.get("openapi")
    paths = description.get("paths") if isinstance(description, Mapping) else None
    if not isinstance(paths, Mapping):
        return None
    asked = path.split("/")
    found = [
        item for described, item in paths.items() if isinstance(item, Mapping) and _fits(described.split("/"), asked)
    ]
    # OpenAPI does not describe WebSockets: for an app with one, the POST described beside it is not served.
    return any("post" in item for item in found) and not any("x-fal-protocol" in item for item in found)


def _fits(described: list[str], asked: list[str]) -> bool:
    return len(described) == len(asked) and all(
        part == wanted or (part.startswith("{") and part.endswith("}") and wanted != "")
        for wanted, part in zip(asked, described, strict=True)
    )


def cancel_path(path: str) -> str:
    """Return the path that tells an app of a request's cancellation. `path` may include a query."""
    return path.partition("?")[0].rstrip("/") + "/cancel"


def template_of(metadata: Mapping[str, Json], path: str) -> str | None:
    """Return the described path that matches a path, with the fewest parameters. None if there is none.

    Args:
        metadata: the revision's metadata.
        path: without the query.
    """
    description = metadata.get("openapi")
    paths = description.get("paths") if isinstance(description, Mapping) else None
    if not isinstance(paths, Mapping):
        return None
    asked = path.split("/")
    return min(
        (described for described in paths if _fits(described.split("/"), asked)),
        key=lambda described: described.count("{"),
        default=None,
    )
