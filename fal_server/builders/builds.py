"""What all builds share. This is one build for all callers, a log without passwords, and the time of the last use."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

from fal_server.core.faults import Unavailable
from fal_server.core.logs import LogEntry, LogLevel, LogSource
from fal_server.ports import BuildLog, BuiltEnvironment

_USER_INFO = re.compile(r"(?<=://)[^/\s'\"`]*@")
_MASK = "****"
Work = Callable[[Callable[[str], None]], Coroutine[object, None, BuiltEnvironment]]


class _SharedBuild:
    """A running build that several callers follow. It keeps its lines, so that each gets all of them.

    Args:
        work: the build; calls its argument with each line of output.
        ended: called when no more callers can join: it is done, or cancelled (then twice).
    """

    def __init__(self, work: Work, ended: Callable[[_SharedBuild], None]) -> None:
        self._lines: list[LogEntry] = []
        self._changed = asyncio.Event()
        self._askers = 0
        self._ended = ended
        self._task = asyncio.create_task(self._run(work))
        self._task.add_done_callback(self._finish)

    async def follow(self, log: BuildLog) -> BuiltEnvironment:
        """Wait for the end. If the last caller is cancelled, cancel the build.

        Args:
            log: gets every line; a slow one delays no other caller.

        Raises:
            Unavailable: `cancel` was called.
            Fault: the build itself raised it.
        """
        self._askers += 1
        try:
            sent = 0
            while True:
                changed, done = self._changed, self._task.done()
                while sent < len(self._lines):
                    sent += 1
                    await log(self._lines[sent - 1])
                if done and self._task.cancelled():
                    raise Unavailable("the build was cancelled because the controller is stopping: deploy again")
                if done:
                    return self._task.result()
                await changed.wait()
        finally:
            self._askers -= 1
            if not self._askers and not self._task.done():
                await self.cancel()

    async def cancel(self) -> None:
        """Cancel the build; return when nothing is left of it."""
        self._ended(self)
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self, work: Work) -> BuiltEnvironment:
        try:
            return await work(self._add)
        finally:
            self._ended(self)  # before a caller can see that it is done, and start another

    def _add(self, text: str) -> None:
        entry = LogEntry(
            runner_id="",
            sequence=len(self._lines) + 1,
            timestamp=datetime.now(UTC),
            level=_level(text),
            source=LogSource.BUILD,
            message=text,
        )
        self._lines.append(entry)
        self._wake()

    def _finish(self, task: asyncio.Task[BuiltEnvironment]) -> None:
        if not task.cancelled():
            task.exception()  # retrieved, even if every caller is gone
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class SharedBuilds:
    """The builds in progress, one for each environment."""

    def __init__(self) -> None:
        self._under_way: dict[str, _SharedBuild] = {}

    def __contains__(self, env_id: str) -> bool:
        return env_id in self._under_way

    async def follow(self, env_id: str, work: Work, log: BuildLog) -> BuiltEnvironment:
        """Start a build, or join the one in progress. Wait for its end.

        Args:
            work, log: as in `_SharedBuild`.

        Raises:
            Fault: as in `_SharedBuild.follow`.
        """
        build = self._under_way.get(env_id)
        if build is None:

            def ended(ended: _SharedBuild) -> None:
                if self._under_way.get(env_id) is ended:
                    del self._under_way[env_id]

            build = self._under_way[env_id] = _SharedBuild(work, ended)
        return await build.follow(log)

    async def cancel(self) -> None:
        """Cancel every build; nothing is left of them."""
        for build in list(self._under_way.values()):
            await build.cancel()


def _level(text: str) -> LogLevel:
    if text.lstrip().startswith(("error:", "\N{MULTIPLICATION SIGN} ")):  # the latter explains conflicts
        return LogLevel.ERROR
    return LogLevel.WARNING if text.startswith("warning:") else LogLevel.INFO


class UrlRedactor:
    """Masks the user and password of URLs.

    Args:
        sources: texts whose URLs have passwords, which are masked outside of URLs, too.
    """

    def __init__(self, sources: Iterable[str]) -> None:
        found: set[str] = set()
        for source in sources:
            for match in _USER_INFO.finditer(source):
                for part in match.group()[:-1].split(":", 1):
                    found |= {part, unquote(part)}
        # A user name, such as `git` or `token`, is no secret, and masking it would garble the log.
        longest_first = sorted((part for part in found if len(part) >= 6), key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, text: str) -> str:
        """Mask the passwords in a text."""
        masked = _USER_INFO.sub(f"{_MASK}@", text)
        return self._known.sub(_MASK, masked) if self._known else masked


def note_use(path: Path) -> None:
    """Record a use now, by touching an empty file."""
    with suppress(OSError):  # on a full disk; nothing is deleted there because of it
        flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(path, flags, 0o600))
        os.utime(path, follow_symlinks=False)


def changed_at(path: Path) -> datetime | None:
    """When a file was last changed; None if it does not exist."""
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except FileNotFoundError:
        return None
