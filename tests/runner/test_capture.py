"""What a worker writes to its two pipes arrives in the journal. It is complete, and in the order of its times."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from fal_grpc.v1 import log_pb2
from fal_runner.log.capture import OutputRecorder, capture
from fal_runner.log.frames import FrameReader, new_mark
from fal_runner.log.journal import Journal
from fal_runner.log.redaction import Redactor
from fal_runner.worker.request_output import RequestWriter
from tests.runner.test_frames import MARK, framed

_STDOUT, _STDERR = log_pb2.LogEntry.SOURCE_STDOUT, log_pb2.LogEntry.SOURCE_STDERR


async def captured(directory: Path, write: Callable[[RequestWriter, RequestWriter], None]) -> list[log_pb2.LogEntry]:
    """Return the journal's entries of what a worker writes. It writes to standard output and error."""
    mark = new_mark()
    journal = Journal(directory)
    pipes = [os.pipe(), os.pipe()]
    sources = dict(zip([reading for reading, _ in pipes], (_STDOUT, _STDERR), strict=True))
    work = asyncio.create_task(capture(sources, journal, Redactor([]), 1_000_000, mark, lambda _: None))

    def worker() -> None:
        writers = [RequestWriter(writing, mark) for _, writing in pipes]
        write(*writers)
        for _, writing in pipes:
            os.close(writing)

    await asyncio.to_thread(worker)
    await work
    reader = journal.reader(0)
    entries: list[log_pb2.LogEntry] = []
    while batch := reader.read(1_000_000):
        entries += batch
    journal.close()
    return entries


def test_lines_of_both_streams_come_in_the_order_of_their_times(tmp_path: Path) -> None:
    def write(out: RequestWriter, err: RequestWriter) -> None:
        for number in range(3000):
            (err if number % 3 else out).write(b"%d\n" % number)

    before = time.time_ns()
    entries = asyncio.run(captured(tmp_path, write))
    assert [entry.message for entry in entries] == [str(number) for number in range(3000)]
    assert [entry.source for entry in entries[:4]] == [_STDOUT, _STDERR, _STDERR, _STDOUT]
    times = [entry.timestamp.ToNanoseconds() for entry in entries]
    assert times == sorted(times)
    assert before <= times[0]
    assert times[-1] <= time.time_ns()


def test_output_without_times_is_complete(tmp_path: Path) -> None:
    def write(out: RequestWriter, err: RequestWriter) -> None:
        for number in range(2000):
            out.write(b"framed %d\n" % number)
            os.write(out.fileno(), b"raw %d\n" % number)
        os.write(err.fileno(), b"no newline")

    entries = asyncio.run(captured(tmp_path, write))
    of_stdout = [entry.message for entry in entries if entry.source == _STDOUT]
    assert of_stdout == [f"{kind} {number}" for number in range(2000) for kind in ("framed", "raw")]
    assert [entry.message for entry in entries if entry.source == _STDERR] == ["no newline"]


def test_what_waits_in_a_pipe_is_read_when_the_capture_is_ended(tmp_path: Path) -> None:
    async def ended() -> list[str]:
        journal = Journal(tmp_path)
        reading, writing = os.pipe()
        work = asyncio.create_task(capture({reading: _STDOUT}, journal, Redactor([]), 1000, MARK, lambda _: None))
        await asyncio.sleep(0)
        os.write(writing, framed("one", b"last words\n") + b"and more")
        work.cancel()
        await asyncio.wait([work])
        os.close(writing)
        return [entry.message for entry in journal.reader(0).read(1000)]

    assert asyncio.run(ended()) == ["last words", "and more"]


def test_no_time_lies_ahead_and_output_without_a_time_has_that_of_the_next() -> None:
    recorder = OutputRecorder(_STDOUT, Redactor([]), 1000)
    tomorrow = time.time_ns() + 86_400_000_000_000
    stream = b"raw\n" + framed("one", b"known\n", at_ns=5) + framed("one", b"ahead\n", at_ns=tomorrow) + b"late\n"
    lines = recorder.take(FrameReader(MARK).feed(stream))
    assert [line.texts for line in lines] == [["raw"], ["known"], ["ahead"], ["late"]]
    assert [line.at_ns for line in lines[:2]] == [5, 5]
    assert all(5 < line.at_ns < tomorrow for line in lines[2:])
