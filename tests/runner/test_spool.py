"""The spool keeps numbered records on disk, within a limit. It counts lost ones."""

from __future__ import annotations

import itertools
import os
import resource
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fal_runner.log.spool import Record, Spool


def read_all(spool: Spool, after: int, at_a_time: int = 1 << 30) -> list[Record]:
    reader = spool.reader(after)
    return list(itertools.chain.from_iterable(iter(lambda: reader.read(at_a_time), [])))


@contextmanager
def full_disk(room: int) -> Generator[None]:
    """Refuse what a file would have beyond some bytes. New files can be made, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_disk_that_refuses_even_to_truncate_a_file_raises_nothing(tmp_path: Path) -> None:
    """A read-only disk refuses both. Records are counted, and later ones are kept once the disk works again."""
    spool = Spool(tmp_path)
    spool.append([b"before"])
    (segment,) = tmp_path.iterdir()
    opened = next(path for path in Path("/proc/self/fd").iterdir() if path.exists() and path.samefile(segment))
    with Path("/dev/full").open("wb") as refusing, full_disk(room=0):
        os.dup2(refusing.fileno(), int(opened.name))
        assert spool.append([b"lost", b"lost too"]) == 3
    assert spool.append([b"kept"]) == 4
    assert read_all(spool, 0) == [Record(1, b"before"), Record(3, None, 2), Record(4, b"kept")]
    spool.close()


class SpoolMachine(RuleBasedStateMachine):
    """Append, acknowledge and reopen in any order. Each record is read once, or counted as dropped."""

    @initialize(max_bytes=st.sampled_from([600, 4000, 1 << 20]))
    def begin(self, max_bytes: int) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.max_bytes = max_bytes
        self.spool = Spool(Path(self.directory.name), max_bytes=max_bytes)
        self.written: list[bytes] = []
        self.acked = 0

    def teardown(self) -> None:
        if hasattr(self, "directory"):
            self.spool.close()
            self.directory.cleanup()

    @rule(payloads=st.lists(st.binary(max_size=60), max_size=12))
    def append(self, payloads: list[bytes]) -> None:
        assert self.spool.append(payloads) == len(self.written) + len(payloads)
        self.written += payloads

    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        self.acked = data.draw(st.integers(self.acked, len(self.written)))
        self.spool.ack(self.acked)

    @rule(payloads=st.lists(st.binary(max_size=60), max_size=12), room=st.sampled_from([0, 30, 100]))
    def append_on_a_full_disk(self, payloads: list[bytes], room: int) -> None:
        with full_disk(room):
            assert self.spool.append(payloads) == len(self.written) + len(payloads)
        self.written += payloads

    @rule()
    def reopen(self) -> None:
        self.spool.close()
        self.spool = Spool(Path(self.directory.name), max_bytes=self.max_bytes)
        del self.written[self.spool.last :]  # the numbers of records lost at the very end are nowhere on the disk
        self.acked = min(self.acked, self.spool.last)

    @rule(data=st.data(), at_a_time=st.sampled_from([1, 50, 1000]))
    def read(self, data: st.DataObject, at_a_time: int) -> None:
        after = data.draw(st.integers(self.acked, len(self.written)))
        position = after
        for record in read_all(self.spool, after, at_a_time):
            if record.payload is None:
                assert record.dropped == record.sequence - position > 0
            else:
                assert record.sequence == position + 1
                assert record.payload == self.written[record.sequence - 1]
            position = record.sequence
        assert position == len(self.written)

    @invariant()
    def bounded(self) -> None:
        if hasattr(self, "spool"):
            size = sum(path.stat().st_size for path in Path(self.directory.name).iterdir())
            assert size <= self.max_bytes + 80  # one record may be larger than the rest


TestSpoolMachine = SpoolMachine.TestCase
TestSpoolMachine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_a_reader_goes_on_while_records_are_appended(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    reader = spool.reader(0)
    assert reader.read(1000) == []
    spool.append([b"a", b"b"])
    assert [record.payload for record in reader.read(1000)] == [b"a", b"b"]
    spool.append([b"c"])
    assert [(record.sequence, record.payload) for record in reader.read(1000)] == [(3, b"c")]
    spool.close()


@settings(deadline=None)
@given(cut=st.integers(1, 200))
def test_a_torn_end_is_not_read(cut: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        spool = Spool(Path(directory))
        spool.append([b"x" * 30 for _ in range(10)])
        spool.close()
        (segment,) = Path(directory).iterdir()
        whole = segment.read_bytes()
        segment.write_bytes(whole[:-cut])
        records = read_all(Spool(Path(directory)), 0)
        assert len(records) == (len(whole) - cut) // 46
        assert [record.sequence for record in records] == list(range(1, len(records) + 1))


def test_a_flipped_bit_ends_the_segment(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append([b"first", b"second"])
    spool.close()
    (segment,) = tmp_path.iterdir()
    segment.write_bytes(segment.read_bytes().replace(b"second", b"sEcond"))
    assert [record.payload for record in read_all(Spool(tmp_path), 0)] == [b"first"]


def test_a_full_disk_loses_records_but_not_count_of_them(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append([b"before"])
    with full_disk(room=40):
        spool.append([b"x" * 100, b"y" * 100])
    spool.append([b"after"])
    assert [(record.sequence, record.payload, record.dropped) for record in read_all(spool, 0)] == [
        (1, b"before", 0),
        (3, None, 2),
        (4, b"after", 0),
    ]
    spool.close()


def test_a_disk_that_is_full_for_long_takes_and_shows_records_again(tmp_path: Path) -> None:
    """A full disk takes a new file, but no record in it. No reader may stumble over it."""
    spool = Spool(tmp_path)
    spool.append([b"before"])
    reader = spool.reader(0)
    reader.read(1000)
    with full_disk(room=0):
        for _ in range(3):
            spool.append([b"lost"])
    assert reader.read(1000) == [Record(4, None, 3)]
    spool.append([b"after"])
    assert reader.read(1000) == [Record(5, b"after")]
    spool.close()


def test_the_files_are_the_users_own(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "log")
    spool.append([b"x"])
    spool.close()
    assert (tmp_path / "log").stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "log").iterdir())


@pytest.mark.parametrize("after", [0, 5, 9, 10, 11])
def test_reading_begins_anywhere(tmp_path: Path, after: int) -> None:
    spool = Spool(tmp_path)
    spool.append([bytes([number]) for number in range(10)])
    assert [record.sequence for record in read_all(spool, after)] == list(range(after + 1, 11))
    spool.close()


def test_a_segment_without_a_whole_record_is_written_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append([b"torn"])
    spool.close()
    (segment,) = tmp_path.iterdir()
    segment.write_bytes(segment.read_bytes()[:-1])
    spool = Spool(tmp_path)
    assert spool.last == 0
    spool.append([b"again"])
    assert [(record.sequence, record.payload) for record in read_all(spool, 0)] == [(1, b"again")]
    spool.close()
