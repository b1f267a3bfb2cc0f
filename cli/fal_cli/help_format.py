"""The format of fal's help texts."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from itertools import groupby
from textwrap import wrap

from fal_cli.presentation.folding import fold_lines

# The usage line does not repeat a list of choices longer than this: `--state {..} [...]`.
_LONG_METAVAR = 40


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Formats help as `Usage: ...`, `Positional Arguments:`, `Options:`. An option looks like `--lines, -n LINES`."""

    def add_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[argparse._MutuallyExclusiveGroup],  # pyright: ignore[reportPrivateUsage]
        prefix: str | None = None,
    ) -> None:
        super().add_usage(usage, actions, groups, "Usage: " if prefix is None else prefix)

    def add_argument(self, action: argparse.Action) -> None:
        """Lay out a list of commands by its own width. The options beside it do not matter."""
        if action.nargs != argparse.PARSER:
            super().add_argument(action)
            return
        self._add_item(self._format_commands, [action])

    def _format_commands(self, action: argparse.Action) -> str:
        beside = self._action_max_length
        self._indent()
        names = [self._format_action_invocation(command) for command in action._get_subactions()]  # type: ignore[attr-defined]  # noqa: SLF001
        self._action_max_length = max(map(len, names)) + self._current_indent
        self._dedent()
        text = self._format_action(action)
        self._action_max_length = beside
        return text

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Fill paragraphs with overlong lines. Keep other paragraphs and indented lines, such as examples."""
        lines: list[str] = []
        for indented, found in groupby(text.splitlines(), lambda line: not line or line.startswith(" ")):
            paragraph = list(found)
            if not indented and max(map(len, paragraph)) > width:
                paragraph = [" ".join(paragraph)]
            lines += paragraph
        return "\n".join(indent + line for line in fold_lines("\n".join(lines), width).splitlines())

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        metavar = str(action.metavar or default_metavar)
        if action.nargs == argparse.ONE_OR_MORE and len(metavar) > _LONG_METAVAR:
            return f"{metavar} [...]"
        return super()._format_args(action, default_metavar)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        metavar = super()._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {metavar}"
