"""Every part of the .proto files has a comment. Every method names its status codes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import pytest
from google.protobuf import descriptor_pb2

from tests.support.contract import INTERNAL_SERVICES

ROOT = Path(__file__).resolve().parents[2]
LINT_MARK = "buf:lint:ignore"
UNSERVED = {"InteractiveRun", "Map"}

# The parts of a descriptor: (attribute, its field number, and the same for their parts).
Layout: TypeAlias = "Sequence[tuple[str, int, Layout]]"
_ENUM: Layout = (("value", 2, ()),)
_MESSAGE: list[tuple[str, int, Layout]] = [("field", 2, ()), ("oneof_decl", 8, ()), ("enum_type", 4, _ENUM)]
_MESSAGE.append(("nested_type", 3, _MESSAGE))
_FILE: Layout = (("service", 6, (("method", 2, ()),)), ("message_type", 4, _MESSAGE), ("enum_type", 5, _ENUM))


def compiled() -> descriptor_pb2.FileDescriptorSet:
    """Compile protos/ with comments."""
    buf = Path(sys.executable).with_name("buf")
    done = subprocess.run(
        [buf, "build", "protos", "-o", "-#format=binpb"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        env={**os.environ, "BUF_CACHE_DIR": str(ROOT / ".cache" / "buf")},  # otherwise it is in the home directory
    )
    return descriptor_pb2.FileDescriptorSet.FromString(done.stdout)


def parts_of(holder: Any, layout: Layout, prefix: str, path: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name and descriptor path of a file's or message's parts. Parts that protoc generates are left out."""
    for attribute, number, inner in layout:
        for index, part in enumerate(getattr(holder, attribute)):
            generated = (attribute == "nested_type" and part.options.map_entry) or part.name.startswith("_")
            if generated:
                continue
            name, here = f"{prefix}{part.name}", (*path, number, index)
            yield name, here
            yield from parts_of(part, inner, f"{name}.", here)


def comments() -> dict[str, str]:
    """Return each part's comment by file and full name. Comments have no marks for the linter."""
    found: dict[str, str] = {}
    for file in OWN_FILES:
        comments_at = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
        found[file.name] = comments_at.get((12,), "").strip()
        for name, path in parts_of(file, _FILE, "", ()):
            lines = comments_at.get(path, "").splitlines()
            found[f"{file.name}:{name}"] = "\n".join(line.strip() for line in lines if LINT_MARK not in line).strip()
    return found


def methods() -> list[tuple[str, str, str]]:
    """Return (service, method, comment) for every method."""
    names = [
        (file, service.name, method.name) for file in OWN_FILES for service in file.service for method in service.method
    ]
    return [(service, method, COMMENTS[f"{file.name}:{service}.{method}"]) for file, service, method in names]


OWN_FILES = [file for file in compiled().file if file.package == "fal.v1"]
COMMENTS = comments()
METHODS = methods()


def test_everything_has_a_comment() -> None:
    assert len(COMMENTS) > 400
    assert [name for name, comment in COMMENTS.items() if not comment] == []


def test_comments_are_sentences() -> None:
    assert [name for name, comment in COMMENTS.items() if not comment.endswith((".", ".)"))] == []


@pytest.mark.parametrize(("service", "method", "comment"), METHODS, ids=[f"{item[0]}.{item[1]}" for item in METHODS])
def test_a_method_says_which_status_codes_it_returns(service: str, method: str, comment: str) -> None:
    prose, heading, listing = comment.partition("Status codes:")
    assert prose.startswith(f"{method} ")
    assert heading
    codes = re.findall(r"^- ([A-Z_]+): \S", listing, re.MULTILINE)
    assert codes
    assert len(codes) == len(set(codes))
    assert set(codes) <= {code.name for code in grpc.StatusCode}
    if service not in INTERNAL_SERVICES:
        assert "UNAUTHENTICATED" in codes
        assert ("PERMISSION_DENIED" in codes) is ("It needs no permission." not in prose)
        assert ("UNIMPLEMENTED" if method in UNSERVED else "UNAVAILABLE") in codes
    if "INVALID_ARGUMENT" in codes:
        names_it = "the message" if service in INTERNAL_SERVICES else "BadRequest"
        assert f"{names_it} names the field" in " ".join(listing.split())
