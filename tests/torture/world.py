"""The controller under torture and what can be done to it, to its runners and to its disk."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

from tests.support.controller import Controller, start
from tests.support.left_behind import groups, kill_everything
from tests.torture.history import History

_DISK_MIB = 128
_PIECE = bytes(1024 * 1024)


class World:
    """One state directory, whose controller may be dead.

    Args:
        folder: where everything is.
        disk: whether the state directory may be a small file system of its own (this process is alone in its mounts).
    """

    def __init__(self, folder: Path, history: History, *, disk: bool) -> None:
        self.folder = folder
        self.history = history
        self.state_dir = folder / "state"
        self.state_dir.mkdir()
        self.disk = disk
        if disk:
            mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MIB}m,mode=0700", "torture", str(self.state_dir)]
            subprocess.run(mount, check=True)
        # Environments are large and not what is to fail.
        (folder / "environments").mkdir()
        (self.state_dir / "environments").symlink_to(folder / "environments")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.controller: Controller | None = None
        self._changing = asyncio.Lock()

    @property
    def filler(self) -> Path:
        """What fills the disk."""
        return self.state_dir / "filler"

    async def up(self) -> None:
        """Start the controller where none runs; again and again, since a full disk may hold it up."""
        async with self._changing:
            for attempt in range(5):
                if self.controller is not None and self.controller.process.poll() is None:
                    return
                try:
                    self.controller = await asyncio.to_thread(start, self.state_dir, "--port", str(self.port))
                except AssertionError:
                    if attempt == 4:
                        raise
                    self.filler.unlink(missing_ok=True)

    async def die(self, seconds: float, meanwhile: Callable[[], Awaitable[None]]) -> None:
        """kill -9, and after so long another one starts; `meanwhile` nobody watches the runners."""
        controller = self.controller
        if controller is None or controller.process.poll() is not None:
            return
        begun = time.time()
        controller.process.kill()
        controller.process.wait()
        await pause(seconds / 2)
        await meanwhile()
        await pause(seconds / 2)
        await self.up()
        self.history.note("fault", what="controller killed", at=begun, until=time.time())

    async def restart(self, number: int) -> None:
        """An orderly end (SIGTERM, or SIGUSR1: runners go on) and another start."""
        controller = self.controller
        if controller is None or controller.process.poll() is not None:
            return
        begun = time.time()
        controller.process.send_signal(number)
        code = await asyncio.to_thread(controller.process.wait, 90)
        await self.up()
        name = signal.Signals(number).name
        self.history.note("fault", what=f"controller ended by {name}", at=begun, until=time.time(), code=code)

    async def fal(self, *arguments: str) -> tuple[int, str]:
        """Run a command; its exit code and what it said."""
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
        """(runner, shim's pid, worker's pid) of every runner that has both."""
        found = []
        for runner_id, members in sorted(groups(self.state_dir).items()):
            pids = {seen.pid for seen in members}
            shims = [seen for seen in members if seen.parent not in pids]
            workers = [seen for seen in members if shims and seen.parent == shims[0].pid]
            if len(shims) == 1 and workers:
                found.append((runner_id, shims[0].pid, workers[0].pid))
        return found

    def kill(self, pid: int) -> None:
        """SIGKILL."""
        try:
            psutil.Process(pid).kill()
        except psutil.NoSuchProcess:
            return

    async def freeze(self, pid: int, seconds: float) -> None:
        """SIGSTOP for a while."""
        try:
            process = psutil.Process(pid)
            process.suspend()
        except psutil.NoSuchProcess:
            return
        try:
            await pause(seconds)
        finally:
            with suppress(psutil.NoSuchProcess):
                process.resume()  # psutil knows it by its start time too

    @asynccontextmanager
    async def full_disk(self) -> AsyncIterator[None]:
        """Nothing can be written any more in the state directory."""
        try:
            await asyncio.to_thread(_fill, self.filler)
            yield
        finally:
            self.filler.unlink(missing_ok=True)

    def close(self) -> None:
        """Whatever is left is ended."""
        if self.controller is not None and self.controller.process.poll() is None:
            self.controller.process.kill()
            self.controller.process.wait()
        kill_everything(self.state_dir)
        if self.disk:
            subprocess.run(["umount", "--lazy", str(self.state_dir)], check=True)


async def pause(seconds: float) -> None:
    """Let time pass: load and faults are made in time, nothing is waited for."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    timer = loop.call_later(seconds, lambda: over.done() or over.set_result(None))
    try:
        await over
    finally:
        timer.cancel()


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for piece in (_PIECE, bytes(4096), b"x"):
            try:
                while True:
                    file.write(piece)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
