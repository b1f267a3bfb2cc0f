"""Ids of requests are UUIDs in order, which differ in both halves."""

from __future__ import annotations

import uuid

from fal_server.http.server.request_ids import RequestIds


def test_ids_are_uuids_of_version_4_without_repetition() -> None:
    ids = RequestIds()
    made = [ids.next() for _ in range(2_000)]
    assert all(str(uuid.UUID(each)) == each and uuid.UUID(each).version == 4 for each in made)
    whole = [each.replace("-", "") for each in made]
    assert len({each[:16] for each in whole}) == len({each[16:] for each in whole}) == len(made)


def test_two_generators_do_not_share_ids() -> None:
    one, other = RequestIds(), RequestIds()
    assert not {one.next() for _ in range(1_000)} & {other.next() for _ in range(1_000)}


def test_ids_ascend_with_time() -> None:
    now = iter([1_700_000_000.5, 1_700_000_000.9, 1_700_000_001.0, 1_800_000_000.0])
    ids = RequestIds(lambda: next(now))
    made = [ids.next() for _ in range(1_000)]
    assert made == sorted(made)
    assert made[0].startswith(f"{1_700_000_000:x}-")


def test_an_id_after_2106_still_has_the_form_of_a_uuid() -> None:
    assert uuid.UUID(RequestIds(lambda: 2.0**32 + 7).next()).version == 4
