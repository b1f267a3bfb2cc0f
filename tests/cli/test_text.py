"""Tables and foreign text in them. Nothing acts on the terminal, and nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_cli.presentation.folding import cut, display_width
from fal_cli.presentation.printable import log_text, one_line, visible
from fal_cli.presentation.table import Column, render

IDS = (Column(title="Alias", folds=True), Column(title="Runner ID"), Column(title="Count", right=True))


def test_columns_are_aligned_and_nothing_trails():
    assert render(IDS, [("a", "r-1", "1"), ("bcdefgh", "r-22", "100")]) == (
        "Alias    Runner ID  Count\na        r-1            1\nbcdefgh  r-22         100\n"
    )


def test_no_rows_leave_the_head():
    assert render(IDS, []) == "Alias  Runner ID  Count\n"


def test_wide_and_combining_characters_keep_the_columns():
    text = render(IDS, [("日本", "r-1", "1"), ("e\u0301", "r-2", "2"), ("abcd", "r-3", "3")])
    assert len({display_width(line) for line in text.splitlines()}) == 1


@given(st.text(), st.integers(0, 12))
def test_a_cut_text_fits_in_cells(text, width):
    shown = cut(text, width)
    assert display_width(shown) <= width
    assert shown == text or text.startswith(shown.removesuffix("…"))


def test_wide_characters_are_cut_by_cells():
    assert (cut("日本語です", 10), cut("日本語です", 9), cut("日本語です", 2)) == ("日本語です", "日本語で…", "…")


def test_a_narrow_terminal_folds_words_and_cuts_no_id():
    long_id = "0123456789abcdef-0123456789abcdef"
    text = render(IDS, [("one two three four", long_id, "5")], width=len(long_id) + 20)
    assert long_id in text
    assert all(len(line) <= len(long_id) + 20 for line in text.splitlines())
    assert "one two three four" not in text
    assert all(word in text for word in ("one", "two", "three", "four"))


def test_rows_that_cannot_fit_become_blocks():
    row = ("one two", "x" * 60, "1")
    assert render(IDS, [row, row], width=70) == (
        f"Alias:     one two\nRunner ID:\n  {'x' * 60}\nCount:     1\n\n"
        f"Alias:     one two\nRunner ID:\n  {'x' * 60}\nCount:     1\n"
    )


def test_ids_become_prefixes_before_rows_become_blocks():
    columns = (IDS[0], Column(title="Runner ID", shortens=True), IDS[2])
    rows = [("one", f"83dd5028-24bc-4895-9c1a-0d6f4a4e1b7{end}", "1") for end in "01"]
    other = ("two", "e7634661-24bc-4895-9c1a-0d6f4a4e1b7d", "1")
    assert render(columns, rows, width=100).count("83dd5028-24bc-4895-9c1a-0d6f4a4e1b7") == 2
    assert render(columns, [rows[0], other], width=23) == (
        "Alias  Runner ID  Count\none    83dd5028       1\ntwo    e7634661       1\n"
    )
    # These two have no prefix shorter than the ids, and other text is not shortened.
    assert "Runner ID:" in render(columns, rows, width=24)
    assert f"Runner ID:\n  {'r' * 20}" in render(columns, [("one", "r" * 20, "1")], width=24)


def test_a_block_leaves_out_what_is_empty():
    assert render(IDS, [("", "x" * 29, "1")], width=40) == f"Runner ID: {'x' * 29}\nCount:     1\n"


def test_a_word_that_is_longer_than_a_line_is_cut():
    assert render(IDS, [("", "x" * 39 + "日" * 2, "")], width=40) == f"Runner ID:\n  {'x' * 38}\n  x日日\n"


def test_a_block_folds_long_text_between_words():
    assert render(IDS, [("one two three", "x" * 16, "1")], width=18).startswith(
        "Alias:     one two\n           three\n"
    )


@given(st.lists(st.tuples(st.text(), st.text(), st.text()), max_size=5), st.none() | st.integers(1, 120))
def test_any_text_makes_a_table_without_control_characters(rows, width):
    text = render(IDS, rows, width=width)
    assert text.endswith("\n") or not rows
    assert visible(text) == text
    if width is None:
        assert text.count("\n") == len(rows) + 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [red]text[/red]", "plain [red]text[/red]"),
        ("\x1b]0;owned\x07", "^[]0;owned^G"),
        ("a\x9bb\x7f", "a\\x9bb^?"),
        ("\u202etxt.exe", "\\u202etxt.exe"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("日本", "日本"),
    ],
)
def test_control_characters_are_spelt_out(text, shown):
    assert visible(text) == shown


def test_a_cell_stays_in_its_line():
    assert one_line("a\nb\tc") == "a\\nb\\tc"


def test_a_log_message_keeps_its_colors_and_nothing_else():
    message = "\x1b[31mred\x1b[0m \x1b[2J\x1b]0;t\x07 end\r"
    assert log_text(message, color=True) == "\x1b[31mred\x1b[0m ^[[2J^[]0;t^G end\x1b[0m"
    assert log_text(message, color=False) == "red ^[[2J^[]0;t^G end"
