"""Container images described in pyproject.toml."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fal.container import ContainerImage

_DOCKERFILE_KEYS = ("dockerfile", "build_args", "secrets", "registries", "entrypoint", "cmd")
_REFERENCE_KEYS = ("image", "registries", "entrypoint", "cmd")


def image_from_table(table: object, owner: str, directory: Path, *, bare: bool) -> dict[str, object]:
    """An image as a deploy sends it.

    Args:
        table: what pyproject.toml has.
        owner: whose it is, for messages.
        directory: directory of pyproject.toml, which paths are relative to.
        bare: whether the image is run as it is, with no Python code of the app in it.

    Raises:
        ValueError: it is neither a Dockerfile nor an image, or a value is not acceptable.
        OSError: the Dockerfile cannot be read.
    """
    if not isinstance(table, Mapping) or ("dockerfile" in table) == ("image" in table):
        raise ValueError(f'{owner}: image needs either dockerfile = "path" or image = "reference"')
    known = _DOCKERFILE_KEYS if "dockerfile" in table else _REFERENCE_KEYS
    unknown = set(table) - set(known)
    if unknown:
        raise ValueError(f"{owner}: image has {', '.join(sorted(unknown))}: here its keys are {', '.join(known)}")
    rest = {key: value for key, value in table.items() if key not in ("dockerfile", "image")}
    if bare:
        rest["use_isolate"] = False
    source = table.get("dockerfile") or table.get("image")
    if not isinstance(source, str) or not source.strip():
        raise ValueError(f"{owner}: image names no {'dockerfile' if 'dockerfile' in table else 'image'}")
    if "dockerfile" in table:
        return ContainerImage.from_dockerfile(directory / source, context_dir=directory, **rest).to_dict()
    # The same rules for the shared keys; the text is only there to be checked with.
    ContainerImage(f"FROM {source}", context_dir=directory, **rest)
    return {"image": source, **rest}
