"""Reads console blocks of the documentation. It compares them with the output of a shell.

A line `...` stands for any number of lines. Ids, addresses, times, durations and long numbers may differ, but
consistently within a page: later commands on the page get the values that earlier commands printed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# A console block, or a file that the reader saves.
_BLOCK = re.compile(
    r"^```console\n(?P<session>.*?)^```|^Save this as `(?P<file>[^`]+)`:\n\n```\w+\n(?P<text>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
_NAMES = {
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}": r"[0-9a-f-]{36}",
    r"\b[0-9a-f]{16}\b": r"[0-9a-f]{16}",
    r"127\.0\.0\.1:\d+": r"127\.0\.0\.1:\d+",
}
_FIGURES = {
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[\d.]*(?:Z|[+-]\d\d:\d\d)?": r"\d{4}-\d\d-\d\d[T ][\d:.]+(?:Z|[+-]\d\d:\d\d)?",
    r"\b\d+:\d\d:\d\d \(\d+s\)": r"\d+:\d\d:\d\d \(\d+s\)",
    r"\b\d+(?:\.\d+)? ?m?s\b": r"\d+(?:\.\d+)? ?m?s",
    r"\b\d{3,}\b": r"\d+",
    r"\bPython 3\.\d+\.\d+": r"Python 3\.\d+\.\d+",
}
_VOLATILE = re.compile("|".join([*_NAMES, *_FIGURES]))


@dataclass
class Step:
    """A command of a page, and the output below it."""

    command: str
    output: list[str] = field(default_factory=list)


def steps(page: str) -> list[Step]:
    """Return the steps of a page in order. They are the commands of its console blocks, and the files to save."""
    found: list[Step] = []
    for block in _BLOCK.finditer(page):
        if block["file"]:
            found.append(Step(f"cat > {block['file']} <<'END'\n{block['text']}END"))
            continue
        for line in block["session"].splitlines():
            if line.startswith("$ "):
                found.append(Step(line[2:]))
            else:
                found[-1].output.append(line)
    return found


class Names:
    """The values, in this run, of the names on a page."""

    def __init__(self) -> None:
        self._real: dict[str, str] = {}

    def command(self, shown: str) -> str:
        """Return a command with the names of this run."""
        return _VOLATILE.sub(lambda match: self._real.get(match[0], match[0]), shown)

    def compare(self, step: Step, printed: str) -> None:
        """Fail if a command's output differs from its page. Otherwise learn the names of this run."""
        groups: list[str] = []

        def pattern(line: str) -> str:
            parts, at = [], 0
            for match in _VOLATILE.finditer(line):
                parts += [_text(line[at : match.start()]), self._pattern(match[0], groups)]
                at = match.end()
            return "".join([*parts, _text(line[at:])])

        lines = [r"(?:.*\n)*?" if line == "..." else pattern(line.rstrip()) + "\n" for line in step.output]
        found = re.fullmatch("".join(lines), printed.strip("\n") + "\n" if printed.strip("\n") else "")
        assert found, f"$ {step.command}\n--- the page shows\n" + "\n".join(step.output) + f"\n--- printed\n{printed}"
        self._real |= dict(zip(groups, found.groups(), strict=True))

    def _pattern(self, shown: str, groups: list[str]) -> str:
        for name, pattern in _NAMES.items():
            if re.fullmatch(name, shown):
                if shown in self._real:
                    return re.escape(self._real[shown])
                if shown in groups:
                    return rf"(?:\{groups.index(shown) + 1})"
                groups.append(shown)
                return f"({pattern})"
        return next(pattern for figure, pattern in _FIGURES.items() if re.fullmatch(figure, shown))


def _text(text: str) -> str:
    """Widths of columns depend on their content."""
    return re.sub(r"(?:\\ ){2,}", r" +", re.escape(text))
