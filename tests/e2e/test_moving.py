"""A controller's move to PostgreSQL, interrupted and complete. Its backups on both databases are here, too."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.controller import BIN, ROOT, Controller, start
from tests.support.left_behind import kill_everything
from tests.support.postgresql import Postgresql, postgresql
from tests.support.queue import Queue
from tests.support.waiting import until

PASSWORD = "hunter2-database"
_LOCK = 4711
# Makes the copy of the table of requests wait for a lock, in the middle of the move.
_HOLD = f"""
create function hold() returns trigger language plpgsql as
$$ begin perform pg_advisory_xact_lock({_LOCK}); return null; end $$;
create function watch() returns event_trigger language plpgsql as
$$ begin
    if exists (select from pg_event_trigger_ddl_commands() where object_identity = 'public.requests') then
        create trigger hold before insert on requests execute function hold();
    end if;
end $$;
create event trigger watch on ddl_command_end when tag in ('CREATE TABLE') execute function watch();
"""
_TABLES = "select count(*) from pg_tables where schemaname = 'public'"
_WAITING = f"select pid from pg_locks where locktype = 'advisory' and objid = {_LOCK} and not granted"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgresql]:
    with tempfile.TemporaryDirectory(prefix="pg") as directory, postgresql(Path(directory)) as running:
        yield running


@pytest.fixture
def state_dir(tmp_path: Path) -> Generator[Path]:
    yield tmp_path / "state"
    kill_everything(tmp_path / "state")
    kill_everything(tmp_path / "backup")


def variables(url: str) -> dict[str, str]:
    return {"FAL_DATABASE_URL": url.replace("fal@", f"fal:{PASSWORD}@")}


def copying(state_dir: Path, url: str) -> subprocess.Popen[str]:
    command = [str(BIN / "fal"), "db", "copy", "--state-dir", str(state_dir)]
    return subprocess.Popen(
        command, env={**os.environ, **variables(url)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def copied(state_dir: Path, url: str) -> str:
    process = copying(state_dir, url)
    output, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    assert PASSWORD not in output + errors
    return output


def rows(state_dir: Path) -> str:
    """Return a digest of the SQLite file's rows."""
    with closing(sqlite3.connect(f"file:{state_dir / 'fal.db'}?mode=ro", uri=True)) as database:
        return hashlib.sha256("\n".join(database.iterdump()).encode()).hexdigest()


def listed(controller: Controller, *words: str) -> Mapping[str, list[dict[str, object]]]:
    return json.loads(controller.fal(*words, "--json").stdout)


class Life:
    """A controller's data before the move."""

    def __init__(self, controller: Controller, folder: Path) -> None:
        self.queue = Queue(controller, "queued", folder).deploy()
        controller.fal("deploy", str(ROOT / "examples" / "hello.py"), "--app-name", "queued", "--env", "main")
        self.queue.deploy()
        self.queue.scale(max_concurrency=1, max_multiplexing=1)
        controller.fal("environments", "create", "side")
        controller.fal("secrets", "set", "TOKEN=hunter2-secret")
        made = json.loads(controller.fal("keys", "create", "--scope", "api", "--desc", "ci", "--json").stdout)
        self.key = f"{made['key_id']}:{made['key_secret']}"
        self.ended = self.queue.submit("ended")
        self.answer = self.queue.finished(self.ended).body
        self.object = self._upload(controller)
        node = {"id": "one", "type": "run", "app": "local/queued/note", "depends": []}
        node["input"] = {"word": "by a workflow", "notes": str(self.queue.notes_file)}
        contents = {"name": "w", "nodes": {"one": node}, "output": {"word": "$one.word"}}
        flow = {"name": "flow", "title": "t", "contents": contents}
        assert controller.call("/workflows/", flow, key=controller.key).status == 201
        self.runs = self.run_of(controller)
        self.held = self.queue.submit("held", gate=str(self.queue.gate))
        self.queue.noted("held")
        self.waits = self.queue.submit("waits")
        self.seen = self.lists(controller)

    def _upload(self, controller: Controller) -> str:
        asked = {"file_name": "kept.json", "content_type": "application/json"}
        target = controller.call("/storage/upload/initiate", asked, key=controller.key).json()
        assert isinstance(target, dict)
        controller.call(target["upload_url"].split(controller.host)[1], {"kept": 1}, method="PUT")
        return str(target["file_url"].split(controller.host)[1])

    def run_of(self, controller: Controller) -> bytes:
        """Run the workflow; return its answer."""
        run = controller.call("/queue/workflows/local/flow", {}, key=controller.key).json()
        assert isinstance(run, dict)
        place = f"/queue/workflows/local/flow/requests/{run['request_id']}"
        until(lambda: controller.call(f"{place}/status", key=controller.key).status == 200, "the workflow has run")
        return controller.call(place, key=controller.key).body

    def lists(self, controller: Controller) -> dict[str, object]:
        """Return the controller's lists, without values that change by themselves."""
        (runner,) = until(self._one_runner, "one runner is left")
        moving = {"active_runners", "last_used_at"}

        def still(*words: str) -> list[dict[str, object]]:
            (rows,) = listed(controller, *words).values()
            return [{name: value for name, value in row.items() if name not in moving} for row in rows]

        return {
            "runner": runner,
            "revisions": still("apps", "list-rev", "queued"),
            "keys": still("keys", "list"),
            "secrets": listed(controller, "secrets", "list"),
            "environments": listed(controller, "environments", "list"),
            "requests": self.queue.about(self.ended),
        }

    def _one_runner(self) -> list[str]:
        found = self.queue.runner_ids()
        return found if len(found) == 1 else []

    def check(self, controller: Controller) -> None:
        """Check that all of it exists, and that waiting requests complete."""
        self.queue.controller = controller
        assert self.lists(controller) == self.seen
        assert self.queue.result(self.ended).body == self.answer
        assert controller.call(self.object).json() == {"kept": 1}
        self.queue.gate.touch()
        assert self.queue.finished(self.waits).json() == {"word": "waits", "authorization": None}
        assert self.queue.finished(self.held).status == 200
        asked = {"word": "direct", "notes": str(self.queue.notes_file)}
        assert controller.call("/local/queued/note", asked, key=self.key).status == 200
        assert self.run_of(controller) == self.runs
        runner = str(self.seen["runner"])
        until(lambda: "noted direct" in controller.fal("runners", "logs", runner).stdout, "its lines go on")
        assert "noted ended" in controller.fal("runners", "logs", runner).stdout


def test_a_move_to_postgresql(server: Postgresql, state_dir: Path, tmp_path: Path) -> None:
    controller = start(state_dir)
    life = Life(controller, tmp_path)
    url = server.make("moved")
    refused = copying(state_dir, url)
    assert "is already running" in refused.communicate(timeout=60)[1]
    assert refused.returncode == 1
    before_audit = len(listed(controller, "audit", "list")["entries"])
    controller.fal("down", "--keep-runners")
    controller.process.wait(60)

    before = rows(state_dir)
    server.ask(_HOLD, "moved")
    with server.held(_LOCK, "moved"):
        cut_off = copying(state_dir, url)
        until(lambda: server.ask(_WAITING, "moved"), "the copy is at the requests")
        cut_off.kill()
        cut_off.communicate()
    until(lambda: server.ask(_TABLES, "moved") == "0", "nothing is left of the copy")
    assert rows(state_dir) == before
    assert not (state_dir / "fal.db.moved").exists()

    output = copied(state_dir, url)
    assert "they are the same" in output
    assert "fal up --detach" in output
    assert not (state_dir / "fal.db").exists()
    controller = start(state_dir, environment=variables(url))
    life.check(controller)
    controller.fal("audit", "verify")
    assert len(listed(controller, "audit", "list")["entries"]) >= before_audit
    controller.fal("secrets", "set", "LATER=1")
    controller.fal("audit", "verify")
    gaps = "select runner_id from log_lines group by runner_id having (min(sequence), max(sequence)) <> (1, count(*))"
    assert server.ask(gaps, "moved") == ""
    assert controller.stop() == 0
    written = b"".join(path.read_bytes() for path in state_dir.rglob("*") if path.is_file())
    assert PASSWORD.encode() not in written + server.dump("moved")


def start_after_the_lease(state_dir: Path, *options: str, environment: Mapping[str, str]) -> Controller:
    """Start a controller once its database's lease is over. A copy has that of the original."""

    def started() -> Controller | None:
        try:
            return start(state_dir, *options, environment=environment)
        except AssertionError as refused:
            if "another controller uses this database" not in str(refused):
                raise
            return None

    found = until(started, "the lease is over")
    assert found is not None
    return found


@pytest.mark.parametrize("way", ["sqlite", "postgresql", "dump"])
def test_a_backup_goes_back(way: str, server: Postgresql, state_dir: Path, tmp_path: Path) -> None:
    """A backup of a running controller can be restored to each database. A dump of PostgreSQL can go to a new one."""
    environment = {} if way == "sqlite" else variables(server.make(f"before_{way}"))
    controller = start(state_dir, environment=environment)
    controller.fal("deploy", str(ROOT / "examples" / "hello.py"), "--app-name", "kept", "--auth", "private")
    controller.fal("secrets", "set", "EARLY=hunter2-secret")
    key = controller.key
    assert controller.call("/local/kept", {"name": "a"}, key=key).status == 200
    backup = tmp_path / "backup"
    if way == "dump":
        dump = server.dump(f"before_{way}")
    else:
        done = subprocess.run(
            [str(BIN / "fal"), "db", "backup", str(backup), "--keys", "--state-dir", str(state_dir)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert PASSWORD not in done.stdout + done.stderr
    controller.fal("secrets", "set", "LATE=1")
    assert controller.stop() == 0

    url = server.url(f"after_{way}")
    match way:
        case "sqlite":
            controller = start(backup, "--adopt-copy")
        case "postgresql":
            server.make(f"after_{way}")
            copied(backup, url)
            controller = start_after_the_lease(backup, "--adopt-copy", environment=variables(url))
        case _:
            server.restore(f"after_{way}", dump)
            controller = start_after_the_lease(state_dir, environment=variables(url))
    assert controller.key == key
    assert controller.call("/local/kept", {"name": "b"}, key=key).json() == {"message": "Hello, b!"}
    names = [one["name"] for one in listed(controller, "secrets", "list")["secrets"]]
    assert names == ["EARLY"]
    controller.fal("audit", "verify")
    assert controller.stop() == 0
