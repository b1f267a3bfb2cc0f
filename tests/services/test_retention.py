"""Retention: content for revisions and runners stays. Other content is deleted when it is old."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from fal_server.core.faults import Unavailable
from fal_server.core.identity import LOCAL
from fal_server.core.retention import Generation
from fal_server.core.revisions import AppFile
from fal_server.core.runners import Desired
from fal_server.services.retention import Deleted, Retention
from fal_server.store.files.app_files import DiskAppFiles
from tests.fakes.domain import SCOPE, START
from tests.fakes.platform import SPEC, Platform

WEEK = timedelta(days=7)
LONG_AGO = START - timedelta(days=30)


class Built:
    """An EnvironmentStore with a list of generations."""

    def __init__(self, *there: Generation) -> None:
        self.there = list(there)

    def generations(self) -> Sequence[Generation]:
        return list(self.there)

    async def delete(self, generation: Generation) -> bool:
        self.there.remove(generation)
        return True


def built(env_id: str, number: int = 1) -> Generation:
    at = LONG_AGO + timedelta(days=number)
    return Generation(env_id=env_id, name=f"{env_id}-{number}", number=number, finished_at=at, used_at=at)


def age(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (LONG_AGO.timestamp(), LONG_AGO.timestamp()))


def clearing(platform: Platform, files: DiskAppFiles, environments: Built, life: timedelta | None = WEEK) -> Retention:
    return Retention(
        platform.store, platform.catalog, platform.fleet, platform.blobs, files, [environments], platform.clock, life
    )


async def test_only_unneeded_content_is_deleted(platform: Platform, tmp_path: Path) -> None:
    files = DiskAppFiles(tmp_path / "files")
    draft = tmp_path / "draft"
    hashes = [letter * 64 for letter in "abc"]
    for file_hash in hashes:
        draft.write_text(file_hash)
        files.place(draft, file_hash, 0o644)
    old = await platform.deploy(function=("cloudpickle", b"old"), entrypoint=None)
    new = await platform.deploy(function=("cloudpickle", b"new"), setup=("cloudpickle", b"setup"), entrypoint=None)
    revision = await platform.store.get_revision(LOCAL, new.revision_id)
    assert revision is not None
    named = replace(revision, revision_id="rev-files", files=(AppFile(hash=hashes[0], relative_path="a"),))
    await platform.store.register(named, replace(platform.app(), name="named", revision_id="rev-files"))
    stray, late = await platform.blobs.put(b"stray"), await platform.blobs.put(b"late")
    blobs = {path.name: path for path in platform.blobs._directory.glob("*/*")}
    age(*(path for name, path in blobs.items() if name != late))
    age(files.path(hashes[0]), files.path(hashes[1]))  # the third was used just now
    for name in (late, hashes[2]):
        path = blobs.get(name) or files.path(name)
        os.utime(path, (START.timestamp(), START.timestamp()))
    environments = Built(built(SPEC.env_id), built(SPEC.env_id, 2), built("nobody-s"))

    kept = clearing(platform, files, environments, None)
    assert await kept.sweep() == Deleted()
    sweep = clearing(platform, files, environments)
    assert await sweep.sweep() == Deleted(blobs=1, files=1, environments=2)
    left = {path.name for path in platform.blobs._directory.glob("*/*")}
    assert set(blobs) - left == {stray}
    assert files.missing(hashes) == [hashes[1]]
    assert [generation.name for generation in environments.there] == [f"{SPEC.env_id}-2"]
    assert await sweep.sweep() == Deleted()

    # A rollback finds all that it needs.
    await platform.apps.set_revision(SCOPE, "a", "", old.revision_id, auth_mode=None, strategy=None)
    await platform.until(lambda: platform.app().revision_id == old.revision_id)


async def test_a_runner_whose_revision_was_deleted_keeps_its_environment(platform: Platform, tmp_path: Path) -> None:
    files = DiskAppFiles(tmp_path / "files")
    old = await platform.deploy()
    lease = await platform.get()
    await platform.deploy(environments=(replace(SPEC, configuration={"requirements": ["x"]}),))
    await platform.until(lambda: platform.fleet.get(lease.runner_id).desired is Desired.DRAIN)  # type: ignore[union-attr]
    await platform.revisions.delete(SCOPE, old.revision_id)
    environments = Built(built(SPEC.env_id))
    sweep = clearing(platform, files, environments)
    await sweep.sweep()
    assert len(environments.there) == 1, "its last request is under way"
    platform.engine.gone(lease.runner_id, "ended")
    await platform.until(lambda: platform.fleet.get(lease.runner_id) is None)
    await sweep.sweep()
    assert environments.there == []


async def test_using_content_keeps_it(platform: Platform, tmp_path: Path) -> None:
    blob = await platform.blobs.put(b"x")
    path = platform.blobs.path(blob)
    age(path)
    assert await platform.blobs.put(b"x") == blob
    assert platform.blobs.forget((), LONG_AGO + timedelta(days=1)) == 0
    age(path)
    assert platform.blobs.forget({blob}, START) == 0
    assert platform.blobs.forget((), START) == 1


async def test_what_cannot_be_deleted_stops_nothing_else(platform: Platform, tmp_path: Path) -> None:
    class Stuck(Built):
        """An EnvironmentStore that cannot delete some of its generations."""

        async def delete(self, generation: Generation) -> bool:
            if generation.name == "busy-1":
                raise Unavailable("the disk does not allow it")
            if generation.name == "odd-1":
                raise RuntimeError("nobody foresaw this")
            return await super().delete(generation)

    files = DiskAppFiles(tmp_path / "files")
    blob = await platform.blobs.put(b"stray")
    age(platform.blobs.path(blob))
    environments = Stuck(built("busy"), built("odd"), built("old"))
    assert await clearing(platform, files, environments).sweep() == Deleted(blobs=1, environments=1)
    assert [generation.name for generation in environments.there] == ["busy-1", "odd-1"]
