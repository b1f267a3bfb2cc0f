"""The house rules that a machine can hold."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOST_LINES = 600


def tracked(pattern: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "--", pattern],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for name in listed.stdout.split("\n") if name and (path := ROOT / name).is_file()]


def sources() -> list[Path]:
    return [path for path in tracked("*.py") if "fal_grpc/v1/" not in path.as_posix()]


def test_no_file_is_so_long_that_it_has_two_subjects() -> None:
    long = {str(p.relative_to(ROOT)): n for p in sources() if (n := len(p.read_text().splitlines())) > MOST_LINES}
    assert not long


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(p.relative_to(ROOT)) for p in sources() if p.read_text().strip() and not p.read_text().startswith('"""')
    ]
    assert not silent


def test_nothing_is_called_utils() -> None:
    published = ROOT / "fal" / "toolkit" / "utils.py"  # where published apps import names from
    found = [p for p in sources() if re.fullmatch(r"(utils?|helpers?|misc|common)", p.stem)]
    assert found == [published]


def test_no_test_sleeps_or_is_skipped() -> None:
    marks = re.compile(r"\b(time\.sleep\(|asyncio\.sleep\((?!0\))|pytest\.skip\(|mark\.skip|mark\.xfail)")
    found = [
        f"{p.relative_to(ROOT)}:{number}"
        for p in sources()
        if p.is_relative_to(ROOT / "tests") and p != Path(__file__) and "samples" not in p.parts  # apps, not tests
        for number, line in enumerate(p.read_text().splitlines(), 1)
        if marks.search(line)
    ]
    assert not found


def test_locks_name_no_registry() -> None:
    for lock in (ROOT / "requirements").glob("*.txt"):
        assert not re.search(r"https?://|--index|--find-links", lock.read_text()), lock.name
