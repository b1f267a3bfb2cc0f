"""Framed output arrives in the shim as it was printed. It has the request that printed it."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from fal_grpc.v1 import log_pb2
from fal_runner.log.capture import OutputRecorder
from fal_runner.log.frames import Chunk, FrameReader, new_mark
from fal_runner.log.redaction import MASK, Redactor
from fal_runner.worker.request_output import CURRENT, RequestWriter

MARK = "\x1e0123456789abcdef:"
ids = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=128)
# Bytes of a mark among the text, to test incomplete marks.
texts = st.lists(st.sampled_from([b"a", b"\n", b"\x1e", b"\x1e01", b"\x1f", MARK.encode()[:-1]]) | st.binary()).map(
    b"".join
)


def framed(request_id: str, data: bytes, kind: bytes = b"-", at_ns: int = 1) -> bytes:
    return b"%s%04x%s%016x%s\x1f%s" % (MARK.encode(), len(data), kind, at_ns, request_id.encode(), data)


def together(pieces: Sequence[Chunk]) -> list[tuple[str, bytes]]:
    """Join consecutive chunks of one request, because their boundaries do not matter."""
    found: list[tuple[str, bytes]] = []
    for piece in pieces:
        if found and found[-1][0] == piece.request_id:
            found[-1] = (piece.request_id, found[-1][1] + piece.data)
        elif piece.data:
            found.append((piece.request_id, piece.data))
    return found


@settings(deadline=None)
@given(st.lists(st.tuples(st.just("") | ids, texts), max_size=6), st.data())
def test_any_output_cut_anywhere(writes: list[tuple[str, bytes]], data: st.DataObject) -> None:
    stream = b"".join(text if not owner else framed(owner, text[:0x7FFF]) for owner, text in writes)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = FrameReader(MARK)
    pieces: list[Chunk] = []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        pieces += reader.feed(stream[start:stop])
    pieces += reader.flush()
    assert together(pieces) == together([Chunk(owner, text) for owner, text in writes])


@settings(deadline=None)
@given(st.binary(), st.binary())
def test_no_bytes_can_hurt_and_none_are_lost(before: bytes, after: bytes) -> None:
    reader = FrameReader(MARK)
    stream = before + MARK.encode() + b"zz" + after
    pieces = reader.feed(stream) + reader.flush()
    assert b"".join(piece.data for piece in pieces) == stream


def test_plain_output_is_passed_on_at_once() -> None:
    reader = FrameReader(new_mark())
    assert reader.feed(b"no newline") == [Chunk("", b"no newline")]


def lines_of(stream: bytes, mark: str) -> list[tuple[str, str]]:
    reader = FrameReader(mark)
    recorder = OutputRecorder(log_pb2.LogEntry.SOURCE_STDOUT, Redactor([]), 1_000_000)
    printed = recorder.take(reader.feed(stream)) + recorder.take(reader.flush()) + recorder.finish()
    return [(lines.request_id, text) for lines in printed for text in lines.texts]


def test_requests_that_print_at_once_do_not_mix_their_lines() -> None:
    stream = framed("one", b"a") + framed("two", b"x") + b"plain\n" + framed("one", b"b\n") + framed("two", b"y\nz")
    stream += framed("two", b"")
    assert lines_of(stream, MARK) == [("", "plain"), ("one", "ab"), ("two", "xy"), ("two", "z")]


def test_an_unfinished_line_comes_at_the_end() -> None:
    assert lines_of(b"common" + framed("one", b"own"), MARK) == [("", "common"), ("one", "own")]


def test_a_record_is_one_entry_whatever_is_between_its_parts() -> None:
    stream = framed("one", b"half ") + framed("one", b"first\n", b"w") + framed("two", b"x\n") + b"plain\n"
    stream += framed("", b"common\nrecord\n", b"E") + framed("one", b"second\n\n", b"W")
    assert lines_of(stream, MARK) == [
        ("two", "x"),
        ("", "plain"),
        ("", "common\nrecord"),
        ("one", "half "),
        ("one", "first\nsecond\n"),
    ]


def test_a_record_that_is_too_long_says_so() -> None:
    recorder = OutputRecorder(log_pb2.LogEntry.SOURCE_STDERR, Redactor(["secret-value"]), 20)
    stream = framed("", b"is secret-value ", b"e") + framed("", b"0123456789\n", b"E")
    (found,) = recorder.take(FrameReader(MARK).feed(stream))
    assert found.levels == [log_pb2.ERROR]
    assert found.texts == [f"is {MASK} 0123 [... 7 bytes cut]"]


def test_requests_that_never_end_a_line_do_not_pile_up() -> None:
    stream = b"".join(framed(str(number), b"start") for number in range(200))
    assert lines_of(stream, MARK) == [(str(number), "start") for number in range(200)]


def test_a_pipe_with_many_writers_keeps_every_line_whole() -> None:
    reading, writing = os.pipe()
    mark = new_mark()
    writer = RequestWriter(writing, mark)

    def request(number: int) -> None:
        CURRENT.set(b"request-%d" % number)
        for turn in range(20):
            writer.write(b"%d " % number * 3000)
            writer.write(b"%d\n" % turn)

    def raw() -> None:
        for turn in range(200):
            os.write(writing, b"raw %d\n" % turn)

    stream = bytearray()

    def read() -> None:
        while data := os.read(reading, 65536):
            stream.extend(data)

    threads = [threading.Thread(target=request, args=(number,)) for number in range(4)]
    threads.append(threading.Thread(target=raw))
    drain = threading.Thread(target=read)
    for thread in (drain, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    os.close(writing)
    drain.join()
    os.close(reading)
    lines = lines_of(bytes(stream), mark)
    for number in range(4):
        own = [text for owner, text in lines if owner == f"request-{number}"]
        assert own == [f"{number} " * 3000 + str(turn) for turn in range(20)]
    assert [text for owner, text in lines if not owner] == [f"raw {turn}" for turn in range(200)]


def test_a_line_without_end_is_ended_with_its_request() -> None:
    reading, writing = os.pipe()
    mark = new_mark()
    writer = RequestWriter(writing, mark)
    token = CURRENT.set(b"one")
    writer.write(b"start")
    writer.end(b"one")
    writer.end(b"one")
    CURRENT.reset(token)
    writer.write(b"\n")
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert lines_of(pipe.read(), mark) == [("one", "start"), ("", "")]
