"""Compares the importable names of the published package with ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Described = Mapping[str, Any]
Surface = Mapping[str, Mapping[str, Described] | None]


def differences(theirs: Surface, ours: Surface) -> Iterator[tuple[str, str, str]]:
    """Yield (module, name, difference) for each name that ours lacks or changes. Programs for theirs miss it.

    Additional names in ours do not count, because they break no program. A class or function in several modules is
    compared once: in its own module if that is compared, otherwise in the first one.
    """
    compared: set[str] = set()
    for module, names in theirs.items():
        found = ours[module]
        assert names is not None, module
        for name, their in names.items():
            if found is None or name not in found:
                yield module, name, "missing"
                continue
            home = str(their.get("id", "")).partition(":")
            if their.get("id") in compared or (home[0] != module and home[2] in (theirs.get(home[0]) or {})):
                continue
            compared.add(str(their.get("id") or f"{module}:{name}"))
            for where, what in _differences(their, found[name]):
                yield module, f"{name}.{where}" if where else name, what


def _differences(their: Described, our: Described) -> Iterator[tuple[str, str]]:
    if their["kind"] != our["kind"]:
        yield "", f"{their['kind']}, ours {our['kind']}"
        return
    if their.get("value") != our.get("value"):
        yield "", f"{their['value']!r}, ours {our.get('value')!r}"
    lost = sorted(set(their.get("bases", ())) - set(our.get("bases", ())))
    if lost:
        yield "", f"no {', '.join(lost)}"
    if their.get("signature") is not None:
        yield from (("", what) for what in _parameters(their["signature"], our.get("signature")))
    for field, default in (their.get("fields") or {}).items():
        given = our.get("fields") or {}
        if field not in given:
            if field not in our.get("members", {}):
                yield field, "no such field"
        elif not _equal(default, given[field]):
            yield field, f"{default!r}, ours {given[field]!r}"
    for member, description in (their.get("members") or {}).items():
        if member in (our.get("members") or {}):
            yield from ((member, what) for _, what in _differences(description, our["members"][member]))
        elif member not in (our.get("fields") or {}):
            yield member, "missing"


def _parameters(their: list[Any], our: list[Any] | None) -> Iterator[str]:
    """Yield the differences that break calls written for theirs."""
    if our is None:
        yield "no signature"
        return
    given = {name: (index, kind, default) for index, (name, kind, default) in enumerate(our)}
    takes_any = any(kind == "VAR_KEYWORD" for _, kind, _ in our) and not any(
        default == ["default", "?"] for *_, default in our
    )
    for index, (name, kind, default) in enumerate(their):
        if kind in ("VAR_POSITIONAL", "VAR_KEYWORD"):
            if not any(our_kind == kind for _, our_kind, _ in our):
                yield f"no {'*' if kind == 'VAR_POSITIONAL' else '**'}{name}"
        elif name not in given:
            if not (takes_any and kind == "KEYWORD_ONLY"):
                yield f"no parameter {name}"
        else:
            at, our_kind, our_default = given[name]
            if kind != "KEYWORD_ONLY" and (our_kind == "KEYWORD_ONLY" or at != index):
                yield f"{name} is number {index + 1}, ours {our_kind.lower() if our_kind == 'KEYWORD_ONLY' else at + 1}"
            if not _equal(default, our_default):
                yield f"{name}={default[-1]!r}, ours {our_default[-1]!r}"
    asked = {name for name, _, _ in their}
    for name, kind, default in our:
        if default == ["required"] and name not in asked and not kind.startswith("VAR_"):
            yield f"ours requires {name}"


def _equal(their: list[Any], our: list[Any]) -> bool:
    """Return whether callers of theirs can use ours. An additional default in ours is allowed."""
    return their == our or our == ["default", "?"] or (their[0] == "required" and our[0] == "default")
