"""What may be deleted: code, files and environments that no revision needs any more, and that nobody used of late."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fal_server.core.revisions import Revision
from fal_server.core.runners import NO_PROCESS, Runner

# However short the retention: what was uploaded for a deploy that is under way is named by no revision yet.
LEAST_AGE = timedelta(hours=1)
# File systems keep times to two seconds at worst.
_COARSE_CLOCKS = timedelta(seconds=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """What revisions name. Every revision that is stored counts: an app can be moved to any of them.

    Attributes:
        blobs: hashes of pickled code.
        files: hashes of the apps' files.
        env_ids: of environments.
    """

    blobs: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()
    env_ids: frozenset[str] = frozenset()

    def plus(self, revisions: Iterable[Revision]) -> Needed:
        """With what these need, too."""
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
        name: its own; a later build of the same environment has another.
        number: it grows with each build.
        usable: whether new runners can get it; an earlier version of the builder may have made it otherwise.
        finished_at: when it was built.
        used_at: when it was last given to a runner or found by a deploy.
    """

    env_id: str
    name: str
    number: int
    usable: bool = True
    finished_at: datetime
    used_at: datetime


def in_use_since(runners: Iterable[Runner], env_ids: Mapping[str, str]) -> dict[str, datetime]:
    """When the longest-living runner of each environment was ordered.

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
    """The generations that may be deleted.

    A new runner gets the newest usable one of its environment, and that is when this was used. So an older one is
    needed by such living runners alone as were ordered before it was last used or before the newest was there, and the
    newest by every revision that names the environment, too.

    Args:
        generations: all that are finished.
        in_use: when the longest-living runner of each environment was ordered; none where no runner lives.
        before: what was used, or followed by another, since then stays.
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
        # What follows the newest usable one was made by another version, whose runners may live still.
        return since is not None or (generation is newest and generation.env_id in needed.env_ids)
    if newest.finished_at >= before:
        return True
    return since is not None and since <= max(newest.finished_at, generation.used_at + _COARSE_CLOCKS)
