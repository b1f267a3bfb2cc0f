"""Decides what may be deleted. This is code, files and environments that are neither needed nor recently used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fal_server.core.revisions import Revision
from fal_server.core.runners import NO_PROCESS, Runner

# The shortest retention: no revision names the uploads of a deploy in progress yet.
LEAST_AGE = timedelta(hours=1)
# Some file systems round times to two seconds.
_COARSE_CLOCKS = timedelta(seconds=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """The content that stored revisions need. All of them count, because an app can be moved to any.

    Attributes:
        blobs: hashes of pickled code.
        files: hashes of the apps' files.
        env_ids: of environments.
    """

    blobs: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()
    env_ids: frozenset[str] = frozenset()

    def plus(self, revisions: Iterable[Revision]) -> Needed:
        """Return this with the needs of these revisions added."""
        blobs, files, env_ids = set(self.blobs), set(self.files), set(self.env_ids)
        for revision in revisions:
            blobs |= {payload.blob for payload in (revision.function, revision.setup) if payload is not None}
            files |= {file.hash for file in revision.files}
            env_ids |= {spec.env_id for spec in revision.environments}
        return Needed(blobs=frozenset(blobs), files=frozenset(files), env_ids=frozenset(env_ids))


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One build of an environment.

    Attributes:
        name: unique for each build of an environment.
        number: increases with each build.
        usable: whether new runners can get it; False if another version of the builder made it.
        finished_at: when it was built.
        used_at: when a runner last got it or a deploy last found it.
    """

    env_id: str
    name: str
    number: int
    usable: bool = True
    finished_at: datetime
    used_at: datetime


def in_use_since(runners: Iterable[Runner], env_ids: Mapping[str, str]) -> dict[str, datetime]:
    """Return when the oldest living runner of each environment was ordered.

    Args:
        env_ids: the environment of each runner's revision, by revision id.
    """
    found: dict[str, datetime] = {}
    for runner in runners:
        env_id = env_ids.get(runner.revision_id)
        if env_id is None or (runner.state in NO_PROCESS and runner.ordered_at is None):
            continue
        since = runner.ordered_at or runner.created_at
        found[env_id] = min(found.get(env_id, since), since)
    return found


def superfluous(
    generations: Sequence[Generation], needed: Needed, in_use: Mapping[str, datetime], before: datetime
) -> list[Generation]:
    """Return the generations that may be deleted.

    A new runner gets the newest usable generation of its environment, which counts as a use. So an older generation is
    needed only by living runners that were ordered before its last use or before the newest existed. Every revision
    that names the environment also needs the newest one.

    Args:
        generations: all finished ones.
        in_use: when the oldest living runner of each environment was ordered.
        before: a generation that was used or replaced after this time stays.
    """
    newest: dict[str, Generation] = {}
    for generation in generations:
        known = newest.get(generation.env_id)
        if generation.usable and (known is None or generation.number > known.number):
            newest[generation.env_id] = generation
    return [
        generation
        for generation in generations
        if max(generation.used_at, generation.finished_at) < before
        and not _wanted(generation, newest.get(generation.env_id), needed, in_use.get(generation.env_id), before)
    ]


def _wanted(
    generation: Generation, newest: Generation | None, needed: Needed, since: datetime | None, before: datetime
) -> bool:
    if newest is None or generation.number >= newest.number:
        # A generation newer than the newest usable one comes from another version, whose runners may still live.
        return since is not None or (generation is newest and generation.env_id in needed.env_ids)
    if newest.finished_at >= before:
        return True
    return since is not None and since <= max(newest.finished_at, generation.used_at + _COARSE_CLOCKS)
