"""Resolve the lock files from their inputs, or check them. They must match and name no registry."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("app", "plot", "controller", "postgresql", "s3", "profile", "mcp", "testing")
LOCKS: dict[str, list[str]] = {
    # Not the extra `ray`, which weighs 214 MB: it is in an environment of its own.
    "dev.txt": ["pyproject.toml", *(f"--extra={name}" for name in EXTRAS), "--group", "dev"],
    "ray.txt": ["requirements/ray.in"],
    # The requirements of `fal up` in the tested versions, for `make sbom`.
    "controller.txt": ["pyproject.toml", "--extra", "controller", "--constraint", "requirements/dev.txt"],
    "sbom.txt": ["requirements/sbom.in"],
    "docs.txt": ["requirements/docs.in"],
    "bootstrap.txt": ["requirements/bootstrap.in"],
    "queue-peers.txt": ["requirements/queue-peers.in"],
    "proto.txt": ["requirements/proto.in"],
    "kubernetes.txt": ["requirements/kubernetes.in"],
    "interop.txt": ["requirements/interop.in"],
    **{
        f"interop-{version}.txt": [f"requirements/interop-{version}.in"] for version in ("1.20", "1.50", "1.70", "1.80")
    },
}
FLAGS = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-annotate", "--no-header", "--quiet"]
ADDRESS = re.compile(r"https?://|--(extra-)?index-url|--find-links|file:")


def resolve(name: str, source: list[str], *, upgrade: bool) -> int:
    """Resolve one lock file with uv, keeping its versions unless upgrading."""
    command = [str(ROOT / ".venv/bin/uv"), "pip", "compile", *source, *FLAGS, "-o", f"requirements/{name}"]
    return subprocess.run([*command, *(["--upgrade"] if upgrade else [])], cwd=ROOT, check=False).returncode


def check() -> int:
    """Return 1 if a lock contains an address or is stale. Resolving a stale one with its own versions changes it."""
    failed = False
    for name, source in LOCKS.items():
        path = ROOT / "requirements" / name
        before = path.read_text()
        if found := ADDRESS.search(before):
            print(f"requirements/{name} names a registry ({found[0]}): run `make lock`", file=sys.stderr)
            failed = True
        resolve(name, source, upgrade=False)
        if path.read_text() != before:
            path.write_text(before)
            print(f"requirements/{name} does not match {source[0]}: run `make lock`", file=sys.stderr)
            failed = True
    return int(failed)


def main() -> int:
    """Resolve or check the lock files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a lock is stale")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions within the bounds")
    options = parser.parse_args()
    if options.check:
        return check()
    return max(resolve(name, source, upgrade=options.upgrade) for name, source in LOCKS.items())


if __name__ == "__main__":
    sys.exit(main())
