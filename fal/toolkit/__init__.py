"""fal.toolkit: nothing of it is in this package yet; a name of it fails with what to do instead."""

from __future__ import annotations


def __getattr__(name: str) -> object:
    if name.startswith("__"):
        raise AttributeError(name)
    raise ImportError(
        f"fal.toolkit.{name} is not part of this package: return data from endpoints directly, for instance as "
        "base64 text or as a fastapi Response"
    )
