"""Print the product's Python files that differ from main. `make check` reads them, one in each line."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("fal", "fal_grpc", "fal_mcp", "fal_server", "fal_runner", "cli")
MAINS = ("origin/main", "main", "HEAD")


def git(*arguments: str) -> str | None:
    """Return what git prints, or None if it fails."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def changed() -> list[str]:
    """Return changed and new files, committed or not. Generated and deleted ones are left out."""
    base = next(found.strip() for main in MAINS if (found := git("merge-base", "HEAD", main)))
    paths = [f"{package}/*.py" for package in PRODUCT]
    differing = git("diff", "--name-only", "--diff-filter=d", base, "--", *paths) or ""
    new = git("ls-files", "--others", "--exclude-standard", "--", *paths) or ""
    return [name for name in f"{differing}{new}".splitlines() if not name.startswith("fal_grpc/v1/")]


if __name__ == "__main__":
    print("\n".join(changed()))
