"""The importable names of the published package and ours. Each difference has a row with its reason."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop.records import covers
from tests.interop.surface import differences
from tests.interop.surface_rows import MODULES, ROWS

DUMP = Path(__file__).with_name("surface_dump.py")


def dumped(python: Path | str, *arguments: str, stdin: str = "") -> dict[str, object]:
    done = subprocess.run([python, DUMP, *arguments], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@covers("surface")
def test_each_difference_has_a_reason(python: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = dumped(python, *MODULES)
    asked = {module: list(names) for module, names in theirs.items() if isinstance(names, dict)}
    assert list(asked) == list(MODULES)
    ours = dumped(sys.executable, "-", stdin=json.dumps(asked))
    found = list(differences(theirs, ours))  # type: ignore[arg-type]  # what the script writes
    unexplained = [one for one in found if not any(row.covers(*one[:2]) for row in ROWS)]
    idle = [row for row in ROWS if not any(row.covers(*one[:2]) for one in found)]
    names = sum(map(len, asked.values()))
    differing = len({one[:2] for one in found})
    with capsys.disabled():
        print(f"\n{names} names in {len(asked)} modules: {differing} differ, {len(unexplained)} unexplained")
    assert not unexplained
    assert not idle


def test_a_difference_is_seen() -> None:
    function = {"kind": "function", "signature": [["a", "POSITIONAL_OR_KEYWORD", ["required"]]]}
    other = {"kind": "function", "signature": [["b", "KEYWORD_ONLY", ["default", 1]]]}
    model = {
        "kind": "class",
        "bases": ["Base"],
        "fields": {"x": ["default", 1]},
        "members": {"m": {"kind": "property"}},
    }
    bare = {"kind": "class", "bases": [], "fields": {"x": ["default", 2]}, "members": {}}
    theirs = {"m": {"f": function, "g": function, "K": model, "c": {"kind": "value", "value": 1}}}
    ours = {"m": {"f": other, "K": bare, "c": {"kind": "value", "value": 2}}}
    assert list(differences(theirs, ours)) == [
        ("m", "f", "no parameter a"),
        ("m", "g", "missing"),
        ("m", "K", "no Base"),
        ("m", "K.x", "['default', 1], ours ['default', 2]"),
        ("m", "K.m", "missing"),
        ("m", "c", "1, ours 2"),
    ]
    assert next(iter(differences(theirs, {"m": None}))) == ("m", "f", "missing")
    assert list(differences(theirs, theirs)) == []
