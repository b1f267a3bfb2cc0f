"""The controller under torture. Faults are of the controller, its runners and its disk."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

from fal_runner.process import launch
from fal_runner.worker import worker
from tests.support.controller import Controller, start
from tests.support.left_behind import groups, kill_everything, rows
from tests.support.moved_clock import MovedClock
from tests.torture.history import History

_DISK_MIB = 128
_PIECE = bytes(1024 * 1024)


class World:
    """One state directory, whose controller may be dead.

    Args:
        folder: contains all files.
        disk: whether the state directory may be a small file system (this process has its own mount namespace).
        isolation: the level of the runners.
    """

    def __init__(self, folder: Path, history: History, *, disk: bool, isolation: str) -> None:
        self.folder = folder
        self.isolation = isolation
        self.history = history
        self.state_dir = folder / "state"
        self.state_dir.mkdir()
        self.disk = disk
        if disk:
            mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MIB}m,mode=0700", "torture", str(self.state_dir)]
            subprocess.run(mount, check=True)
        # Environments are large, and their building is not under test.
        (folder / "environments").mkdir()
        (self.state_dir / "environments").symlink_to(folder / "environments")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.controller: Controller | None = None
        self._clock = MovedClock(folder)
        self._changing = asyncio.Lock()

    @property
    def filler(self) -> Path:
        """The file that fills the disk."""
        return self.state_dir / "filler"

    async def up(self) -> None:
        """Start the controller unless one runs. Try repeatedly, because a full disk may prevent it."""
        async with self._changing:
            for attempt in range(5):
                if self.controller is not None and self.controller.process.poll() is None:
                    return
                try:
                    self.controller = await asyncio.to_thread(self._start)
                except AssertionError:
                    if attempt == 4:
                        raise
                    self.filler.unlink(missing_ok=True)

    def _start(self) -> Controller:
        return start(
            self.state_dir, "--port", str(self.port), environment=self._clock.environment, isolation=self.isolation
        )

    async def step_clock(self, by: float, seconds: float) -> None:
        """Move the wall clock of the controller for some seconds. Its child processes see it, too."""
        started_at = time.time()
        try:
            self._clock.step(by)
            await pause(seconds)
        finally:
            self._clock.step(0)
        self.history.note("fault", what="clock stepped", at=started_at, until=time.time(), by=by)

    async def start_copy(self, *, adopt: bool) -> None:
        """Copy the state directory while it is in use. Start a controller on the copy for some seconds.

        Args:
            adopt: whether to start it with `--adopt-copy`; otherwise it must be refused.
        """
        copy, started_at = self.folder / "copy", time.time()
        # Files may vanish while they are copied.
        await asyncio.to_thread(subprocess.run, ["cp", "-a", self.state_dir, copy], check=False, capture_output=True)
        (copy / "filler").unlink(missing_ok=True)
        known = {row[0] for row in await asyncio.to_thread(rows, self.state_dir, "select runner_id from runners")}
        said, foreign = "it started", set[object]()
        try:
            started = await asyncio.to_thread(
                start, copy, *(["--adopt-copy"] if adopt else []), isolation=self.isolation
            )
        except AssertionError as error:
            said = str(error)[-300:]
        else:
            living = "select runner_id from runners where state != 'terminated'"
            foreign = known & {row[0] for row in await asyncio.to_thread(rows, copy, living)}
            await pause(1.0)  # it would end runners of the original by now, or at its stop
            started.process.terminate()
            await asyncio.to_thread(started.process.wait, 90)
        refused = said != "it started"
        self.history.note(
            "copy",
            at=started_at,
            until=time.time(),
            adopted=adopt,
            refused=refused,
            said=said,
            foreign=sorted(map(str, foreign)),
        )
        await asyncio.to_thread(kill_everything, copy)
        await asyncio.to_thread(shutil.rmtree, copy, ignore_errors=True)

    async def few_descriptors(self, more: int, seconds: float) -> bool:
        """Let the controller open only a few more files, for some seconds. Return whether there was a controller."""
        controller, started_at = self.controller, time.time()
        if controller is None:
            return False
        pid = controller.process.pid
        try:
            before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (psutil.Process(pid).num_fds() + more, before[1]))
            await pause(seconds)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        except (ProcessLookupError, psutil.NoSuchProcess):
            return False
        self.history.note("fault", what="few descriptors", at=started_at, until=time.time())
        return True

    async def die(self, seconds: float, meanwhile: Callable[[], Awaitable[object]]) -> bool:
        """Kill the controller, and start another after some seconds. `meanwhile` runs without a controller.

        Returns:
            Whether there was a controller.
        """
        controller = self.controller
        if controller is None or controller.process.poll() is not None:
            return False
        started_at = time.time()
        controller.process.kill()
        controller.process.wait()
        await pause(seconds / 2)
        await meanwhile()
        await pause(seconds / 2)
        await self.up()
        self.history.note("fault", what="controller killed", at=started_at, until=time.time())
        return True

    async def restart(self, number: int) -> bool:
        """Stop it properly, and start another; return whether there was one. With SIGUSR1, runners go on."""
        controller = self.controller
        if controller is None or controller.process.poll() is not None:
            return False
        started_at = time.time()
        controller.process.send_signal(number)
        code = await asyncio.to_thread(controller.process.wait, 90)
        await self.up()
        name = signal.Signals(number).name
        self.history.note("fault", what=f"controller ended by {name}", at=started_at, until=time.time(), code=code)
        return True

    async def fal(self, *arguments: str, port: int | None = None) -> tuple[int, str]:
        """Run a command, optionally with another port. Return its exit code and output."""
        controller = self.controller
        if controller is None:
            return 1, "no controller"
        environment = dict(os.environ)
        environment |= {
            **{name: value for name, value in controller.environment.items() if name.startswith("FAL_")},
            "FAL_CONFIG_PATH": str(self.folder / "config.toml"),
            "HOME": str(self.folder),
            "PATH": controller.environment["PATH"],
        }
        if port is not None:
            environment["FAL_GRPC_HOST"] = f"127.0.0.1:{port}"
        process = await asyncio.create_subprocess_exec(
            "python",
            "-m",
            "fal_cli",
            *arguments,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(240):
                out, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            return 124, "no end within 240 s"
        return process.returncode or 0, out.decode(errors="replace")

    def victims(self) -> list[tuple[str, int, int]]:
        """Return (runner, shim's pid, worker's pid) of every runner that has both."""
        found = []
        for runner_id, members in sorted(groups(self.state_dir).items()):
            pids = {seen.pid for seen in members}
            shims = [seen.pid for seen in members if seen.parent not in pids]
            workers = [pid for pid in pids if _is_worker(pid)]
            if len(shims) == 1 and len(workers) == 1:
                found.append((runner_id, shims[0], workers[0]))
        return found

    def kill(self, pid: int) -> None:
        """Send SIGKILL."""
        try:
            psutil.Process(pid).kill()
        except psutil.NoSuchProcess:
            return

    async def freeze(self, pid: int, seconds: float) -> None:
        """Send SIGSTOP, and SIGCONT after a while."""
        try:
            process = psutil.Process(pid)
            process.suspend()
        except psutil.NoSuchProcess:
            return
        try:
            await pause(seconds)
        finally:
            with suppress(psutil.NoSuchProcess):
                process.resume()  # psutil also compares its start time

    @asynccontextmanager
    async def full_disk(self) -> AsyncGenerator[None]:
        """Fill the disk of the state directory."""
        try:
            await asyncio.to_thread(_fill, self.filler)
            yield
        finally:
            self.filler.unlink(missing_ok=True)

    def close(self) -> None:
        """End whatever is left."""
        if self.controller is not None and self.controller.process.poll() is None:
            self.controller.process.kill()
            self.controller.process.wait()
        kill_everything(self.state_dir)
        self._clock.clean()
        if self.disk:
            subprocess.run(["umount", "--lazy", str(self.state_dir)], check=True)


async def pause(seconds: float) -> None:
    """Let time pass for load and faults; this waits for no event."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    timer = loop.call_later(seconds, lambda: over.done() or over.set_result(None))
    try:
        await over
    finally:
        timer.cancel()


def _is_worker(pid: int) -> bool:
    """Return whether it runs the app. Its launcher and the processes of its sandbox do not count."""
    try:
        command = psutil.Process(pid).cmdline()
    except psutil.NoSuchProcess:
        return False
    return worker.__file__ in command and launch.__file__ not in command


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for piece in (_PIECE, bytes(4096), b"x"):
            try:
                while True:
                    file.write(piece)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
