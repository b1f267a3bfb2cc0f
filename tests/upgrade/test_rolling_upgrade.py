"""An upgrade of two controllers in turn, under load. No request fails.

No release that is kept can wait for another, so the later version is a copy of this one with one migration more.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.keep_release import PACKAGES
from tests.e2e.test_nodes import APP, NodeProcess, call, end, join, start_node
from tests.support.controller import ROOT, Controller, start
from tests.support.postgresql import Postgresql, postgresql
from tests.support.waiting import until

_MIGRATIONS = Path("fal_server/store/sql/migrations")
_EACH = 20
"""How many requests of each kind are to be answered before, between and after the changes."""


@pytest.fixture
def server() -> Iterator[Postgresql]:
    with tempfile.TemporaryDirectory(prefix="pg") as directory, postgresql(Path(directory)) as running:
        yield running


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    started = start_node(tmp_path / "box2")
    yield started
    end(started)


MIGRATION = '''"""A later table."""

import sqlalchemy as sa
from alembic import op

revision = "{later}"
down_revision = "{head}"


def upgrade() -> None:
    op.create_table("later", sa.Column("id", sa.Integer, primary_key=True))
'''


def later_version(folder: Path) -> tuple[Path, str]:
    """Make a copy of this version with one migration more. Return it, and what this one's database has."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    head = folder / _MIGRATIONS / "__init__.py"
    text = head.read_text()
    found = re.search(r'HEAD = "(\d+)"', text)
    assert found is not None
    later = f"{int(found[1]) + 1:04}"
    head.write_text(text.replace(found[0], f'HEAD = "{later}"'))
    migration = folder / _MIGRATIONS / "versions" / f"m{later}_later.py"
    migration.write_text(MIGRATION.format(later=later, head=found[1]))
    return folder, found[1]


def begin(folder: Path, name: str, url: str, version: Path | None = None) -> Controller:
    key = folder / "master.key"
    # Without the safe path, the working directory with this version would come first.
    of_version = {} if version is None else {"PYTHONPATH": str(version), "PYTHONSAFEPATH": "1"}
    return start(
        folder / name,
        *("--standby", "--content-dir", str(folder / "content")),
        environment={"FAL_DATABASE_URL": url, "FAL_MASTER_KEY_FILE": str(key), **of_version},
    )


class Load:
    """Direct and queued requests, in turn to the controllers that are there."""

    def __init__(self, doors: list[Controller]) -> None:
        self.doors = doors
        self.answers: list[object] = []
        self.accepted: list[str] = []
        self.refused: list[object] = []
        self._ended = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        with_us = [threading.Thread(target=self._direct), threading.Thread(target=self._queued)]
        for thread in with_us:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in with_us:
                thread.join()

    def more(self) -> None:
        """Wait until more requests of each kind are answered."""
        direct, queued = len(self.answers) + _EACH, len(self.accepted) + _EACH
        until(
            lambda: self.refused or (len(self.answers) >= direct and len(self.accepted) >= queued),
            f"{direct} answers and {queued} accepted requests",
        )
        assert self.refused == []

    def _direct(self) -> None:
        while not self._ended.is_set():
            try:
                self.answers.append(self.doors[-1].call("/local/far", {}).status)
            except OSError as error:
                self.answers.append(error)

    def _queued(self) -> None:
        while not self._ended.is_set():
            try:
                answer = self.doors[-1].call("/queue/local/far", {})
            except OSError as error:
                self.refused.append(error)
                continue
            if answer.status == 200:
                self.accepted.append(str(dict(answer.json())["request_id"]))
            else:
                self.refused.append(answer.body)


def test_controllers_are_upgraded_one_after_the_other(server: Postgresql, node: NodeProcess, tmp_path: Path) -> None:
    url = server.make("fal")
    (tmp_path / "master.key").write_text("bWFzdGVyLWtleS1vZi10d28tY29udHJvbGxlcnMtMDE=\n")
    (tmp_path / "master.key").chmod(0o600)
    (tmp_path / "far.py").write_text(APP)
    later, revision = later_version(tmp_path / "later")
    old = [begin(tmp_path, name, url) for name in ("first", "second")]
    new: list[Controller] = []
    version = "select version_num from alembic_version"
    try:
        join(old[0], node)
        old[0].fal("deploy", str(tmp_path / "far.py"))
        before = call(old[0])
        assert server.ask(version, "fal") == revision
        load = Load([old[0]])
        with load.running():
            load.more()
            # The one that waits first: what calls the owner notices nothing.
            assert old[1].stop() == 0
            new.append(begin(tmp_path, "second", url, later))
            load.doors.append(new[0])  # as a load balancer does before the owner is stopped
            load.more()
            assert server.ask(version, "fal") == revision, "the owner's version is the database's"
            assert old[0].stop() == 0
            load.more()
            assert server.ask(version, "fal") > revision, "the next owner migrated it"
            new.append(begin(tmp_path, "first", url, later))
            load.doors.append(new[1])
            load.more()
        assert set(load.answers) == {200}
        assert load.refused == []
        assert call(new[1]) == before, "the runner on the node served on"
        for request in load.accepted:
            place = f"/queue/local/far/requests/{request}"
            until(lambda: new[0].call(f"{place}/status", key=new[0].key).status == 200, "it is done")  # noqa: B023
            assert new[0].call(place, key=new[0].key).json() == before
    finally:
        for controller in reversed((*old, *new)):  # the owner last: else the other would take its runners over
            if controller.process.poll() is None:
                controller.stop()
