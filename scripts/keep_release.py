"""Keep the sources of a release's controller for the test of upgrades: `python -m scripts.keep_release [COMMIT]`."""

from __future__ import annotations

import argparse
import io
import lzma
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "tests" / "upgrade"
PACKAGES = ("fal_grpc", "fal_mcp", "fal_runner", "fal_server")


def newest_release(changelog: str) -> str:
    """Return the version of the newest release in a changelog."""
    heads = (line.removeprefix("## [").partition("]")[0] for line in changelog.splitlines() if line.startswith("## ["))
    return next(version for version in heads if version != "Unreleased")


def archive_of(version: str) -> Path:
    """Return the path of a release's kept sources."""
    return KEPT / f"release-{version}.tar.xz"


def packed(commit: str) -> bytes:
    """Return a commit's packages as an archive. Files that only type checkers read are left out."""
    found = subprocess.run(["git", "archive", commit, *PACKAGES], cwd=ROOT, check=True, capture_output=True).stdout
    packed = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(found)) as old, tarfile.open(fileobj=packed, mode="w") as new:
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            if member.isfile() and not member.name.endswith(".pyi"):
                member.mtime = 0
                new.addfile(member, old.extractfile(member))
    return lzma.compress(packed.getvalue(), preset=9 | lzma.PRESET_EXTREME)


def main() -> int:
    """Replace the kept release."""
    parser = argparse.ArgumentParser(prog="python -m scripts.keep_release")
    parser.add_argument("commit", nargs="?", default="HEAD", help="of the release (default: HEAD)")
    commit = parser.parse_args().commit
    changelog = subprocess.run(["git", "show", f"{commit}:CHANGELOG.md"], cwd=ROOT, check=True, capture_output=True)
    path = archive_of(newest_release(changelog.stdout.decode()))
    for other in KEPT.glob("release-*.tar.xz"):
        other.unlink()
    path.write_bytes(packed(commit))
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
