"""What a deployer notes on a revision: a message and annotations, within the limits that controllers keep."""

from __future__ import annotations

import json
from collections.abc import Mapping

from fal.deploy.errors import DeployError

MAX_MESSAGE = 2048
MAX_ANNOTATIONS = 32
MAX_KEY = 64
MAX_TOTAL_BYTES = 16384
RESERVED = frozenset({"openapi", "message", "annotations"})


def checked_notes(message: str | None, annotations: Mapping[str, object] | None) -> dict[str, object]:
    """The message and the annotations as parts of a revision's metadata; what is not given is left out.

    Args:
        message: at most 2048 characters.
        annotations: at most 32, keys of at most 64 characters, 16384 bytes as JSON in all.

    Raises:
        DeployError: a limit is exceeded, a key is reserved or empty, or a value is no text.
    """
    notes: dict[str, object] = {}
    if message is not None:
        if len(message) > MAX_MESSAGE:
            raise DeployError(f"the message has {len(message)} characters; at most {MAX_MESSAGE} are kept")
        notes["message"] = message
    if not annotations:
        return notes
    if len(annotations) > MAX_ANNOTATIONS:
        raise DeployError(f"there are {len(annotations)} annotations; at most {MAX_ANNOTATIONS} are kept")
    for key, value in annotations.items():
        if not key or len(key) > MAX_KEY:
            raise DeployError(
                f"the annotation {key[:MAX_KEY]!r} has a key of {len(key)} characters: use 1 to {MAX_KEY}"
            )
        if key in RESERVED:
            raise DeployError(f"the annotation {key!r} has a reserved name: choose another")
        if not isinstance(value, str):
            raise DeployError(f"the annotation {key!r} is a {type(value).__name__}: give a text")
    size = len(json.dumps(dict(annotations), ensure_ascii=False).encode())
    if size > MAX_TOTAL_BYTES:
        raise DeployError(f"the annotations have {size} bytes as JSON; at most {MAX_TOTAL_BYTES} are kept")
    return {**notes, "annotations": dict(annotations)}
