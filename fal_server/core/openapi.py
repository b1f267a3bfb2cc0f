"""What an app's OpenAPI description, which its deployer sent along, says about its paths."""

from __future__ import annotations

from collections.abc import Mapping

from fal_server.core.revisions import Json


def takes_post(metadata: Mapping[str, Json], path: str) -> bool | None:
    """Return whether an app answers POST at a path; None if it came without a description.

    Args:
        metadata: of the app's revision.
        path: without the query; a part in braces of a described path stands for any one part.
    """
    description = metadata.get("openapi")
    paths = description.get("paths") if isinstance(description, Mapping) else None
    if not isinstance(paths, Mapping):
        return None
    asked = path.split("/")
    found = [
        item for described, item in paths.items() if isinstance(item, Mapping) and _fits(described.split("/"), asked)
    ]
    # OpenAPI knows no WebSockets: where an app has one, the POST that is described beside it is not served.
    return any("post" in item for item in found) and not any("x-fal-protocol" in item for item in found)


def _fits(described: list[str], asked: list[str]) -> bool:
    return len(described) == len(asked) and all(
        part == wanted or (part.startswith("{") and part.endswith("}") and wanted != "")
        for wanted, part in zip(asked, described, strict=True)
    )


def cancel_path(path: str) -> str:
    """Return where an app is told that a request to a path, with or without a query, was cancelled."""
    return path.partition("?")[0].rstrip("/") + "/cancel"


def template_of(metadata: Mapping[str, Json], path: str) -> str | None:
    """Return the described path that a path fits, the one with the fewest parts in braces; None if there is none.

    Args:
        metadata: of the app's revision.
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
