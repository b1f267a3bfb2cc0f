"""Splits bytes into lines, finds levels and masks secrets."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fal_grpc.v1 import log_pb2
from fal_runner.log.lines import EntryReader, LineSplitter, crash_of, level_of, without_level
from fal_runner.log.redaction import MASK, Redactor

text_with_breaks = st.text("ab\r\n", max_size=40).map(str.encode) | st.binary(max_size=40)


def cut(text: bytes, limit: int) -> tuple[bytes, int]:
    return text[:limit], max(0, len(text) - limit)


@settings(deadline=None)
@given(st.lists(text_with_breaks), st.integers(0, 30))
def test_lines_do_not_depend_on_how_the_bytes_come(pieces: list[bytes], limit: int) -> None:
    splitter = LineSplitter(max_bytes=limit)
    lines = [line for piece in pieces for line in splitter.feed(piece)] + splitter.flush()
    *ended, rest = b"".join(pieces).split(b"\n")
    expected = []
    redraws = 10
    for number, text in enumerate([*ended, rest]):
        *before, last = [state for state in text.split(b"\r") if state] or [b""]
        expected += [(*cut(state, limit), 0) for state in before[:redraws]]
        left_out = max(0, len(before) - redraws)
        redraws -= min(redraws, len(before))
        if number < len(ended) or last:
            expected.append((*cut(last, limit), left_out))
    assert [tuple(line) for line in lines] == expected


def test_a_progress_bar_is_seen_as_it_grows_and_at_its_end() -> None:
    splitter = LineSplitter()
    lines = []
    for step in range(1001):  # as tqdm does, ten times a second
        lines += splitter.feed(b"\r%d%%|" % (step // 10), now_seconds=step / 10)
    lines += splitter.feed(b"\n", now_seconds=101)
    shown = [int(line.data.removesuffix(b"%|")) for line in lines]
    assert shown == sorted(shown)
    assert shown[0] == 0
    assert shown[-1] == 100
    assert 100 <= len(shown) <= 115
    assert [line.left_out for line in lines] == [0] * (len(lines) - 1) + [1001 - len(lines)]


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("plain", log_pb2.INFO),
        ("", log_pb2.INFO),
        ("INFO:     Started server process", log_pb2.INFO),
        ("WARNING: disk is nearly full", log_pb2.WARNING),
        ("[ERROR] no", log_pb2.ERROR),
        ("2025-01-01 10:00:00,123 - DEBUG - x", log_pb2.DEBUG),
        ("CRITICAL:root:x", log_pb2.ERROR),
        ("ERRORS are fine", log_pb2.INFO),
        ("an ERROR: in the middle", log_pb2.INFO),
        ('{"event": "x", "level": "error"}', log_pb2.ERROR),
        ('{"severity":"WARNING"}', log_pb2.WARNING),
        ('{"level": "unheard of"}', log_pb2.INFO),
        ('{"a": 1}', log_pb2.INFO),
        ("Traceback (most recent call last):", log_pb2.ERROR),
    ],
)
def test_levels(line: str, level: log_pb2.LogLevel.ValueType) -> None:
    assert level_of(line) == level


@settings(deadline=None)
@given(st.text())
def test_every_line_has_a_level(line: str) -> None:
    assert level_of(line) in log_pb2.LogLevel.values()


CHAIN = """Traceback (most recent call last):
  File "app.py", line 1, in <module>
    load()
ValueError: no weights

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "app.py", line 3, in <module>
RuntimeError: INFO: no weights"""
OTHER = """Traceback (most recent call last):
  File "app.py", line 1, in <module>
KeyboardInterrupt"""
CRASH = """Fatal Python error: Segmentation fault

Current thread 0x00007f0000000000 (most recent call first):
  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at
  File "/app/shop.py", line 12 in load
  File "/app/shop.py", line 3 in run

Extension modules: numpy._core (total: 1)"""


@pytest.mark.parametrize("by", ["lines", "one piece"])
def test_a_whole_traceback_and_a_crash_are_one_error_each(by: str) -> None:
    lines = f"before\n{CHAIN}\nINFO: between\n{OTHER}\n{OTHER}\n{CRASH}\nafter".split("\n")
    reader = EntryReader()
    pieces = [[line] for line in lines] if by == "lines" else [lines]
    read = [entry for piece in pieces for entry in zip(*reader.read(piece), strict=True)]
    error = log_pb2.ERROR
    assert read == [
        ("before", log_pb2.INFO),
        (CHAIN, error),
        ("INFO: between", log_pb2.INFO),
        *[(OTHER, error)] * 2,
        (CRASH, error),
        ("after", log_pb2.INFO),
    ]
    assert reader.flush() == ([], [])


@pytest.mark.parametrize("text", [CHAIN, OTHER, CRASH])
def test_what_is_last_is_held_until_it_is_flushed(text: str) -> None:
    reader = EntryReader()
    assert reader.read(text.split("\n")) == ([], [])
    assert reader.flush() == ([text], [log_pb2.ERROR])


@settings(deadline=None)
@given(st.lists(st.sampled_from([*CHAIN.split("\n"), *CRASH.split("\n"), "x", ""])), st.integers(1, 200))
def test_no_line_is_lost_or_moved(lines: list[str], most: int) -> None:
    reader = EntryReader(most)
    texts = [*reader.read(lines)[0], *reader.flush()[0]]
    assert "\n".join(texts).split("\n") == (lines or [""])


@pytest.mark.parametrize(
    ("report", "crash"),
    [
        (CRASH, "Segmentation fault, in load (shop.py:12)"),
        ("Fatal Python error: Aborted", "Aborted"),
        (CHAIN, None),
    ],
)
def test_a_crash_in_one_line(report: str, crash: str | None) -> None:
    assert crash_of(report) == crash


secrets = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\r\n*"), min_size=4, max_size=30
).filter(lambda value: value == value.strip() and len(value.splitlines()) == 1)


@settings(deadline=None)
@given(st.lists(secrets, min_size=1, max_size=4), st.text(), st.text())
def test_values_do_not_get_through(values: list[str], before: str, after: str) -> None:
    redactor = Redactor(values)
    for value in values:
        redacted = redactor.redact(before + value + after)
        assert MASK in redacted
        assert len(value) < 4 or value not in redacted or value in redactor.redact(before) + redactor.redact(after)


def test_encodings_and_lines_of_a_value() -> None:
    value = "first line+/\nsecond line"
    redactor = Redactor([value, "abc", "p&ss word"])
    assert redactor.redact("second line, abc") == f"{MASK}, abc"
    assert redactor.redact(base64.b64encode(value.encode()).decode()) == MASK
    assert redactor.redact("?q=p%26ss%20word&r=p%26ss+word") == f"?q={MASK}&r={MASK}"
    assert Redactor([]).redact("nothing to hide") == "nothing to hide"


@settings(deadline=None)
@given(secrets, st.integers(1, 29), st.text())
def test_a_cut_line_does_not_end_with_a_part_of_a_value(value: str, kept: int, before: str) -> None:
    part = value[: min(kept, len(value) - 1)]
    assert Redactor([value]).redact_cut(before + part).endswith(MASK)


def test_the_longest_value_goes_first() -> None:
    assert Redactor(["word", "wordplay"]).redact("wordplay word") == f"{MASK} {MASK}"


@settings(deadline=None)
@given(secrets, st.binary(max_size=10), st.binary(max_size=10))
def test_a_value_within_something_that_is_encoded_does_not_get_through(value: str, before: bytes, after: bytes) -> None:
    """`Authorization: Basic` has the base64 of an id, a colon and the secret."""
    encoded = base64.b64encode(before + value.encode() + after).decode()
    redacted = Redactor([value]).redact(encoded)
    assert MASK in redacted
    left = redacted.replace(MASK, "")
    assert len(left) <= (len(before) + len(after)) * 4 / 3 + 8


@pytest.mark.parametrize("width", [64, 76])
def test_a_long_value_in_wrapped_base64(width: int) -> None:
    value = "".join(chr(33 + number % 90) for number in range(300))
    encoded = base64.b64encode(value.encode()).decode()
    redactor = Redactor([value])
    for start in range(0, len(encoded), width):
        assert redactor.redact(encoded[start : start + width]) == MASK


def test_a_value_in_json_and_in_a_repr() -> None:
    value = 'quo"ted\\and ü\nsecond "line"'
    redactor = Redactor([value])
    for text in (json.dumps({"key": value}), repr({"key": value}), json.dumps(value, ensure_ascii=False)):
        redacted = redactor.redact(text)
        assert "ted" not in redacted
        assert "line" not in redacted


@settings(deadline=None)
@given(st.lists(secrets, max_size=3), st.text())
def test_finds_and_redact_agree(values: list[str], text: str) -> None:
    redactor = Redactor(values)
    assert redactor.finds(text) == (redactor.redact(text) != text or any(value in text for value in values))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("INFO:root:hello", "root:hello"),
        ("ERROR:my.module_2:a: b", "my.module_2:a: b"),
        ("INFO:     Started server process", "Started server process"),
        ("INFO: loaded", "INFO: loaded"),
        ("INFO:12:30 was the time", "INFO:12:30 was the time"),
        ("CRITICAL:root:the level of an entry is ERROR", "CRITICAL:root:the level of an entry is ERROR"),
        ("an INFO:root:hello", "an INFO:root:hello"),
    ],
)
def test_a_level_is_dropped_only_if_a_logger_wrote_it(text: str, shown: str) -> None:
    assert without_level(text) == shown
