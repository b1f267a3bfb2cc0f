"""Finds problems, and tells the receivers of notices."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta

from fal_grpc.backoff import Backoff
from fal_server.aio.rounds import Rounds
from fal_server.aio.tasks import TaskSet
from fal_server.core.faults import Fault
from fal_server.core.notices import Notice, compared
from fal_server.ports import Clock
from fal_server.ports.notices import NoticeStore
from fal_server.services.conditions import Conditions
from fal_server.services.notices import Notices

log = logging.getLogger(__name__)
EVERY_SECONDS = 15.0
RETRIES = Backoff(first_seconds=15.0, longest_seconds=600.0)


class NoticeLoop:
    """Compares values with the thresholds every 15 seconds. It does nothing while there are no notices.

    Problems are stored before anybody is told, so a restart neither forgets one nor tells of it twice; only a receiver
    that took a message just before a crash gets it again.
    """

    def __init__(self, notices: Notices, store: NoticeStore, conditions: Conditions, clock: Clock) -> None:
        self._notices = notices
        self._store = store
        self._conditions = conditions
        self._clock = clock
        self._sending: set[str] = set()
        self._failures: dict[str, tuple[int, datetime]] = {}
        self._tasks = TaskSet(log)

    async def run(self, stopping: asyncio.Event) -> None:
        """Look until `stopping` is set. The next controller tells of what this one did not."""
        looking = asyncio.create_task(Rounds("notices", self.look).run(self._notices.changed))
        await stopping.wait()
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        await self._tasks.close()

    async def look(self) -> float | None:
        """Find problems once and start to tell of them. Return when to look again."""
        notices = await self._notices.every()
        for gone in self._failures.keys() - {notice.notice_id for notice in notices}:
            del self._failures[gone]
        for account in dict.fromkeys(notice.account for notice in notices):
            of_it = [notice for notice in notices if notice.account == account]
            readings = await self._conditions.read(account, frozenset().union(*(n.thresholds for n in of_it)))
            for notice in of_it:
                known = await self._store.problems(notice.notice_id)
                changed = compared(notice, known, readings, self._clock.now())
                if changed:
                    await self._store.save(notice.notice_id, changed)
                self._tell_if_due(notice, bool(known or changed))
        return EVERY_SECONDS if notices else None

    async def settle(self) -> None:
        """Wait until nobody is being told."""
        await self._tasks.wait()

    def _tell_if_due(self, notice: Notice, has_problems: bool) -> None:
        _, not_before = self._failures.get(notice.notice_id, (0, self._clock.now()))
        if has_problems and notice.notice_id not in self._sending and not_before <= self._clock.now():
            self._sending.add(notice.notice_id)
            self._tasks.spawn(self._tell(notice), name=f"notice {notice.name}")

    async def _tell(self, notice: Notice) -> None:
        """Send what is due in one message."""
        try:
            now = self._clock.now()
            due = [each for each in await self._store.problems(notice.notice_id) if each.due(now)]
            if not due:
                return
            await self._notices.send(notice, due)
            await self._store.told(notice.notice_id, due, self._clock.now())
            self._failures.pop(notice.notice_id, None)
        except Fault as fault:
            await self._failed(notice, fault.message)
        except OSError as error:
            await self._failed(notice, str(error) or type(error).__name__)
        finally:
            self._sending.discard(notice.notice_id)

    async def _failed(self, notice: Notice, error: str) -> None:
        count = self._failures.get(notice.notice_id, (0, None))[0] + 1
        not_before = self._clock.now() + timedelta(seconds=RETRIES.pause(count))
        self._failures[notice.notice_id] = (count, not_before)
        log.info("notice %s, try %d: %s", notice.name, count, error)
        await self._store.fail(notice.notice_id, error, self._clock.now())
